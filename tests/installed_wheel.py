"""Build the wheel, install it in a fresh environment, and use it from another folder."""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

USE = """
import qcord, pathlib, sys
here = pathlib.Path(qcord.__file__).resolve()
assert not here.is_relative_to(pathlib.Path(sys.argv[1])), f"imported from the source tree: {here}"
from qcord import api
template = api.parametric_template()
assert len(template.regions) == 37
problems = [f for f in api.doctor() if not f.good]
assert not problems, problems
for package, file in (("report", "page.html.j2"), ("pipeline", "pam50.sha256")):
    assert (here.parent / package / file).is_file(), file
assert (here.parent / "py.typed").is_file()
print("installed wheel works:", qcord.__version__)
"""


def main() -> None:
    """Fail with the exit code of the first command that fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
        # What qcord needs is taken from this environment, so that nothing is downloaded again.
        venv.create(folder / "env", with_pip=True)
        scripts = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
        site = subprocess.check_output(
            [sys.executable, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], text=True
        ).strip()
        own = subprocess.check_output(
            [scripts / "python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], text=True
        ).strip()
        wheel = next(folder.glob("*.whl"))
        run(scripts / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
        paths = os.pathsep.join([own, site])
        environment = {**os.environ, "PYTHONPATH": paths}
        run(scripts / "python", "-c", USE, ROOT / "src", cwd=folder, env=environment)
        run(scripts / "python", "-m", "qcord", "--help", cwd=folder, env=environment, stdout=subprocess.DEVNULL)


def run(*command: object, **options: object) -> None:
    """Run a command and stop with its exit code if it fails."""
    code = subprocess.run([str(c) for c in command], check=False, **options).returncode  # type: ignore[call-overload]
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
