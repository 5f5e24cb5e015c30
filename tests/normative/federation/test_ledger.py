import pytest

from qcord.normative.federation.cells import TooRevealing
from qcord.normative.federation.ledger import BrokenLedger, Entry, Ledger, new_ledger


def entry(people, *, request="a", design="d", version="", epsilon=float("inf"), delta=0.0, cell="FA"):
    names = tuple(map(str, people))
    return Entry(request, design, names, {cell: names}, {cell: tuple(n + version for n in names)}, epsilon, delta)


def test_the_same_people_again_are_allowed_and_a_few_more_or_fewer_are_not():
    book = new_ledger().add(entry(range(20)), 10)
    assert book.add(entry(range(20)), 10) is book
    book = book.add(entry(range(20), cell="MD", request="b"), 10)
    for people in (range(21), range(29), range(1, 20), [*range(1, 20), 30]):
        with pytest.raises(TooRevealing, match="differ in"):
            book.add(entry(people, request="c"), 10)
    assert len(book.add(entry(range(30), request="c"), 10).entries) == 3


def test_three_exports_that_differ_enough_in_pairs_but_not_together_are_refused():
    """A + B - C singles one person out, though any two differ in ten people or more."""
    a, b = range(20), range(20, 40)
    c = [*range(40)][:-1]
    book = new_ledger().add(entry(a), 10).add(entry(b, request="b"), 10)
    assert len(set(a) ^ set(c)) >= 10
    assert len(set(b) ^ set(c)) >= 10
    with pytest.raises(TooRevealing, match="differ in 1 people"):
        book.add(entry(c, request="c"), 10)


def test_a_corrected_value_and_another_design_are_refused():
    book = new_ledger().add(entry(range(20)), 10)
    names = tuple(map(str, range(20)))
    corrected = Entry("b", "d", names, {"FA": names}, {"FA": (*names[:19], "19 new")})
    with pytest.raises(TooRevealing, match="corrected"):
        book.add(corrected, 10)
    with pytest.raises(TooRevealing, match="other columns"):
        book.add(entry(range(20), request="b", design="e"), 10)
    assert len(book.add(entry(range(20), request="b", version=" reprocessed"), 10).entries) == 2


def test_the_budget_is_summed_and_refused_beyond_the_total():
    book = new_ledger()
    with pytest.raises(TooRevealing, match="needs the total"):
        book.add(entry(range(20), epsilon=1.0, delta=1e-6), 10)
    total = (2.0, 1e-5)
    book = book.add(entry(range(20), epsilon=1.0, delta=1e-6), 10, total)
    book = book.add(entry(range(19), request="b", epsilon=1.0, delta=1e-6), 10, total)
    assert book.spent == (2.0, 2e-6)
    assert book.add(entry(range(19), request="b", epsilon=1.0, delta=1e-6), 10, total) is book
    with pytest.raises(TooRevealing, match="sum up to 2.1"):
        book.add(entry(range(19), request="c", epsilon=0.1, delta=1e-6), 10, total)


def test_the_ledger_is_read_back_and_a_broken_one_stops_everything():
    book = new_ledger().add(entry(range(12)), 10).add(entry(range(12), epsilon=1.0, delta=1e-6), 10, (1.0, 1e-6))
    again = Ledger.from_json(book.to_json())
    assert again == book
    for text in ("", "{}", book.to_json()[:-20], book.to_json().replace("ledger 1", "ledger 9")):
        with pytest.raises(BrokenLedger):
            Ledger.from_json(text)


def test_hashes_depend_on_the_secret_and_hide_the_participant():
    one, two = new_ledger(), new_ledger()
    assert one.token("sub-01", 34.0) == one.token("sub-01", 34.0)
    assert one.token("sub-01", 34.0) != two.token("sub-01", 34.0)
    assert one.token("sub-01", 34.0) != one.token("sub-01", 35.0)
    assert "sub-01" not in one.token("sub-01")
    assert one.secret.hex() not in repr(one)
