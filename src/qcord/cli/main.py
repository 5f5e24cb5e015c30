"""The command ``qcord``: one verb a file."""

import logging
import os
import sys
import warnings
from importlib.metadata import version
from typing import TextIO

# Threads of the linear algebra library only wait for each other on the small matrices of this work, and they change
# the last digit of results; it reads this on import.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from cyclopts import App, CycloptsError
from rich.console import Console

from qcord.cli import assets, demo, doctor, extract, fit, norm, phantom, register, run, segment
from qcord.core.errors import QcordError, QcordWarning

app = App(
    name="qcord",
    help=(
        "Quantitative spinal cord MRI: from a raw scan to values per tract and level, each with its error.\n\n"
        "Any command takes --debug, which shows where an error came from."
    ),
    version=version("qcord"),
    version_flags=["--version"],
)
for verb in (run, demo, phantom, fit, segment, register, extract, assets, doctor):
    app.command(verb.command, name=verb.__name__.rsplit(".", 1)[-1])
app.command(norm.app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors of users are one line, exit code 1; wrong usage has exit code 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [w for w in words if w != "--debug"]
    if debug:
        logging.basicConfig(level=logging.DEBUG, format="%(message)s")
        logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        _say(f"{error}", "see 'qcord --help'")
        sys.exit(2)
    except QcordError as error:
        if debug:
            raise
        _say(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        _say("Stopped; nothing was left half-written.")
        sys.exit(130)
    sys.exit(int(result) if isinstance(result, int) else 0)


def _note(  # noqa: PLR0917
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning that means something to the user as one line, any other as Python does."""
    if issubclass(category, QcordWarning):
        text = " ".join(str(message).split())
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold yellow]qcord:[/] {_plain(text)}")
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=file or sys.stderr)


def _say(message: str, hint: str = "") -> None:
    """Print an error in one line."""
    text = " ".join(message.split())
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[bold red]qcord:[/] {_plain(text)}" + (f" ({hint})" if hint else "")
    )


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
