"""A progress bar for each subject, on the terminal only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


@contextmanager
def progress_bars() -> Iterator[Callable[[str, str], None]]:
    """Yield a function that is told subject and stage."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bars: dict[str, TaskID] = {}

        def notify(subject: str, stage: str) -> None:
            if subject not in bars:
                bars[subject] = progress.add_task(subject, total=None)
            ended = stage in {"done", "failed"}
            total, completed = (1.0, 1.0) if ended else (None, 0.0)
            progress.update(bars[subject], description=f"{subject}  {stage}", total=total, completed=completed)

        yield notify


def plain(*, error: bool = False) -> Console:
    """Console that prints text as it is, without wrapping paths."""
    return Console(stderr=error, soft_wrap=True, highlight=False, markup=False)
