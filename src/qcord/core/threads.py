"""How many threads the work may use; results never depend on it."""

import os

from threadpoolctl import threadpool_limits

from qcord.core.errors import ImplausibleValue

_limit: int | None = None


def thread_count() -> int:
    """Number of threads to use: the limit that was set, else one a processor."""
    return _limit or os.cpu_count() or 1


def limit_threads(n: int | None) -> None:
    """Limit the number of threads of this process; None lifts the limit.

    The linear algebra library is held at one thread in any case: its own threads only wait for each other on stacks
    of small matrices, and they change the last digit of results.

    Raises
    ------
    ImplausibleValue
        If the number is not positive.
    """
    global _limit
    if n is not None and n < 1:
        raise ImplausibleValue(f"The number of threads is {n}, expected at least 1.")
    _limit = n
    threadpool_limits(1, user_api="blas")  # type: ignore[no-untyped-call]
