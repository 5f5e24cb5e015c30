"""Set up an environment and run the project's jobs with nothing but Python 3.11 or newer.

Usage: python tasks.py {setup,demo,check,test,bench} [arguments for the job]
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("QCORD_VENV", ROOT / ".venv"))
SCRIPTS = FOLDER / ("Scripts" if os.name == "nt" else "bin")
PYTHON = SCRIPTS / ("python.exe" if os.name == "nt" else "python")
OLDEST = (3, 11)


def run(*command: object, **options: object) -> None:
    """Run a command in the project's folder; stop the job with its exit code if it fails."""
    code = subprocess.run([str(c) for c in command], cwd=ROOT, check=False, **options).returncode  # type: ignore[call-overload]
    if code:
        sys.exit(code)


def setup(group: str | None = None) -> None:
    """Make the environment and install qcord, with uv if it is there, else with pip."""
    if sys.version_info < OLDEST:
        sys.exit(f"Python {sys.version.split()[0]} found, expected {OLDEST[0]}.{OLDEST[1]} or newer.")
    stamp = FOLDER / ".qcord-installed"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + str(group or "").encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() in {wanted, _stamp_of("dev")}:
        return
    uv = shutil.which("uv")
    if not PYTHON.is_file():
        print(f"Making an environment in {FOLDER.name} ...", flush=True)
        if uv:
            run(uv, "venv", "--quiet", "--python", sys.executable, FOLDER)
        else:
            venv.create(FOLDER, with_pip=True)
    print("Installing qcord and what it needs ...", flush=True)
    install = (
        [uv, "pip", "install", "--quiet", "--python", PYTHON] if uv else [PYTHON, "-m", "pip", "install", "--quiet"]
    )
    requirements = _group(group) if group else []
    run(*install, "-e", ROOT, *requirements)
    stamp.write_text(wanted)


def _stamp_of(group: str) -> str:
    return hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + group.encode()).hexdigest()


def _group(name: str) -> list[str]:
    import tomllib

    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return list(content["dependency-groups"][name])


def demo(*arguments: str) -> None:
    """Make a phantom cohort, run the main job on it and say where the report lies."""
    setup()
    run(PYTHON, "-m", "qcord", "demo", *arguments)


def check() -> None:
    """Lint, types and import contracts."""
    setup("dev")
    run(SCRIPTS / "ruff", "check", "--no-cache", ".")
    run(SCRIPTS / "ruff", "format", "--check", ".")
    run(SCRIPTS / "mypy")
    run(SCRIPTS / "lint-imports", "--no-cache")


def test(*arguments: str) -> None:
    """All checks and tests, then the built wheel in a folder of its own."""
    check()
    run(PYTHON, "-m", "pytest", *arguments)
    if not arguments:
        run(PYTHON, ROOT / "tests" / "installed_wheel.py")


def bench(*names: str) -> None:
    """Run the named measurements, or list them."""
    setup("dev")
    files = sorted((ROOT / "benchmarks").glob("*.py"))
    if not names:
        print("Give one or more of:", " ".join(f.stem for f in files))
    for name in names:
        run(PYTHON, ROOT / "benchmarks" / f"{name}.py")


JOBS = {"setup": lambda: setup("dev"), "demo": demo, "check": check, "test": test, "bench": bench}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in JOBS:
        sys.exit(__doc__)
    JOBS[sys.argv[1]](*sys.argv[2:])
