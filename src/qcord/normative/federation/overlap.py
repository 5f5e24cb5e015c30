"""Which people can be singled out by subtracting sums over overlapping sets of people.

Who holds sums over several sets can form any linear combination of them. People who belong to exactly the same sets
always enter it with the same factor, so the combination is a sum over whole classes of such people. If every class has
at least the smallest cell size, no combination of any number of sums touches fewer people.
"""

from collections.abc import Collection, Sequence

Class = tuple[frozenset[str], tuple[int, ...]]


def classes(sets: Sequence[Collection[str]]) -> list[Class]:
    """People by the sets that they belong to.

    Parameters
    ----------
    sets : sequence of collections of str
        Names of people.

    Returns
    -------
    list of (people, numbers of their sets)
        In the order of the numbers.
    """
    member: dict[str, list[int]] = {}
    for number, people in enumerate(sets):
        for person in set(people):
            member.setdefault(person, []).append(number)
    found: dict[tuple[int, ...], set[str]] = {}
    for person, numbers in member.items():
        found.setdefault(tuple(numbers), set()).add(person)
    return [(frozenset(found[numbers]), numbers) for numbers in sorted(found)]


def smallest(sets: Sequence[Collection[str]]) -> int:
    """People in the smallest class; 0 if there is none."""
    return min((len(people) for people, _ in classes(sets)), default=0)


def trim(sets: Sequence[Collection[str]], cell_size: int) -> list[frozenset[str]]:
    """Sets without the people whose class is smaller than the cell size: those with a rare pattern of missing values.

    They are left out of all sets, so that the other classes stay as they are.
    """
    rare = frozenset().union(*(people for people, _ in classes(sets) if len(people) < cell_size))
    return [frozenset(people) - rare for people in sets]
