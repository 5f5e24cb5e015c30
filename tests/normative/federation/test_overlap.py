import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.normative.federation.overlap import classes, smallest, trim

SETS = st.lists(st.frozensets(st.integers(0, 25).map(str)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(sets=SETS, seed=st.integers(0, 1000))
def test_no_combination_of_sums_touches_fewer_people_than_the_smallest_class(sets, seed):
    people = sorted(frozenset().union(*sets))
    member = np.array([[p in s for p in people] for s in sets], dtype=float).reshape(len(sets), len(people))
    factors = np.random.default_rng(seed).integers(-2, 3, (200, len(sets)))
    touched = (factors @ member != 0).sum(axis=1)
    assert (touched[touched > 0] >= smallest(sets)).all()


@settings(max_examples=60, deadline=None)
@given(sets=SETS, size=st.integers(1, 6))
def test_trimming_leaves_only_large_classes_and_keeps_those(sets, size):
    kept = trim(sets, size)
    assert all(len(people) >= size for people, _ in classes(kept))
    large = frozenset().union(*(people for people, _ in classes(sets) if len(people) >= size))
    assert frozenset().union(*kept) == large


def test_people_with_a_rare_pattern_leave_all_sets():
    whole = frozenset(map(str, range(20)))
    assert trim([whole, whole - {"3"}], 5) == [whole - {"3"}] * 2
