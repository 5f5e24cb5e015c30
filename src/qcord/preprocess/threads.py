"""Work on fixed batches in several threads, with results that do not depend on their number."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

CAN_LIMIT_BLAS = find_spec("threadpoolctl") is not None
"""Whether the threads inside the linear algebra library can be held at one."""


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None
) -> Iterator[Result]:
    """Apply a function to items in parallel and yield the results in the order of the items.

    The linear algebra library is held at one thread meanwhile: on stacks of small matrices its own threads only
    wait for each other, and they change the last digit of a result. Where that is not possible (`CAN_LIMIT_BLAS`)
    the items are worked on one after the other, which is as fast as two threads that fight.

    Parameters
    ----------
    function : callable
        From item to result; must not depend on other items.
    items : iterable
        Batches whose size does not depend on the number of threads.
    threads : int, optional
        Number of threads; by default one a processor.
    """
    workers = threads or os.cpu_count() or 1
    if workers == 1 or not CAN_LIMIT_BLAS:
        with _one_blas_thread():
            yield from map(function, items)
        return
    with _one_blas_thread(), ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _one_blas_thread() -> AbstractContextManager[object]:
    """Hold the linear algebra library at one thread, where that is possible."""
    if not CAN_LIMIT_BLAS:
        return nullcontext()
    limits: AbstractContextManager[object] = import_module("threadpoolctl").threadpool_limits(1, user_api="blas")
    return limits
