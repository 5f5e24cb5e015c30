"""One writer at a time in a folder that several processes add to."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from qcord.core.errors import NotWritable

PATIENCE = 120.0
"""Seconds to wait for another process."""

if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the lock of a folder; the system frees it when the process ends, however it ends.

    Raises
    ------
    NotWritable
        If another process holds it for longer than the patience [s].
    """
    with (folder / ".lock").open("ab") as file:
        end = time.monotonic() + patience
        while True:
            try:
                _try_lock(file)
                break
            except OSError as error:
                if time.monotonic() > end:
                    busy = f"Another process has been writing to {folder.name} for {patience:g} s"
                    raise NotWritable(f"{busy}; try again when it is done.") from error
                time.sleep(0.05)
        yield
