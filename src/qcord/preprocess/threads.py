"""Work on fixed batches in several threads, with results that do not depend on their number."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

from threadpoolctl import threadpool_limits

from qcord.core.threads import thread_count

Item = TypeVar("Item")
Result = TypeVar("Result")


def one_blas_thread() -> AbstractContextManager[object]:
    """Hold the linear algebra library at one thread within a block.

    On stacks of small matrices its own threads only wait for each other (up to thirty times slower on a busy
    machine), and they change the last digit of a result.
    """
    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")  # type: ignore[no-untyped-call]
    return limits


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None
) -> Iterator[Result]:
    """Apply a function to items in parallel and yield the results in the order of the items.

    Parameters
    ----------
    function : callable
        From item to result; must not depend on other items.
    items : iterable
        Batches whose size does not depend on the number of threads.
    threads : int, optional
        Number of threads; by default `qcord.core.threads.thread_count`.
    """
    workers = threads or thread_count()
    with one_blas_thread():
        if workers == 1:
            yield from map(function, items)
            return
        with ThreadPoolExecutor(workers) as pool:
            waiting: deque[Future[Result]] = deque()
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
