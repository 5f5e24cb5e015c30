"""Time of a multi-contrast cohort, whether the same seed gives the same bytes, and what the BIDS validator says.

Run ``python benchmarks/scanner.py [subjects] [effect ...]``; ten subjects and all effects by default, two at a time.
The validator (``pip install bids-validator-deno``) is asked where it is found on the path or in BIDS_VALIDATOR.
"""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from threadpoolctl import threadpool_limits

from qcord.core.protocol import Protocol
from qcord.models.registry import MODELS
from qcord.phantom.cohort import cohort
from qcord.phantom.effects import USUAL, usual_effects
from qcord.phantom.scan import Scan
from qcord.phantom.spec import PhantomSpec, preset
from qcord.pipeline.phantom import write_phantoms

STANDARD = ("T2w", "T2star", "dwi", "epi", "multishell", "MTS")
FURTHER = ("vfa", "r2star", "t2")
ANGLES = Protocol(
    {"FlipAngle": [3.0, 8.0, 20.0], "RepetitionTimeExcitation": [0.02] * 3, "MTState": [False] * 3}, "flip angles"
)


def base(effects: tuple[str, ...]) -> PhantomSpec:
    """All series of the standard protocol, and variable flip angles, gradient and spin echoes where they are known."""
    further = tuple(name for name in FURTHER if name in MODELS)
    scans = () if "vfa" in further else (Scan("mtsat-ernst", ANGLES, name="angles", suffix="VFA"),)
    series = (*STANDARD, *(scan.name for scan in scans), *further)
    return preset("dcm").replace(series=series, scans=scans, effects=usual_effects(*effects))


def digest(folder: Path) -> str:
    """One number for all names and contents of a folder."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return total.hexdigest()[:16]


def validate(folder: Path) -> str:
    """Number of errors that the BIDS validator finds."""
    program = os.environ.get("BIDS_VALIDATOR") or shutil.which("bids-validator-deno")
    if not program:
        return "not found"
    found = subprocess.run([program, str(folder), "--json"], capture_output=True, text=True, check=False)
    issues = json.loads(found.stdout)["issues"]["issues"]
    errors = [i for i in issues if i["severity"] == "error"]
    for issue in errors[:10]:
        print("  ", issue["code"], issue.get("location", ""))
    return f"{len(errors)} errors, {len(issues) - len(errors)} warnings"


if __name__ == "__main__":
    words = sys.argv[1:]
    subjects = int(words.pop(0)) if words and words[0].isdigit() else 10
    effects = tuple(words) or tuple(USUAL)
    specs = cohort(base(effects), subjects, 1)
    print(f"{subjects} subjects, series {' '.join(specs[0].series)}, effects {' '.join(effects)}")
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "raw"
        start = time.perf_counter()
        write_phantoms(specs, out, n_jobs=2)
        size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 1e6
        print(f"two at a time: {time.perf_counter() - start:.0f} s, {size:.0f} MB")
        print(f"BIDS validator: {validate(out)}")
    found = []
    for jobs, threads in ((1, 1), (2, 2)):
        with tempfile.TemporaryDirectory() as name, threadpool_limits(threads):
            start = time.perf_counter()
            found.append(digest(write_phantoms(specs[:2], Path(name) / "raw", n_jobs=jobs)))
            print(
                f"two subjects, {jobs} at a time, {threads} threads: {time.perf_counter() - start:.0f} s, {found[-1]}"
            )
    print("same bytes" if found[0] == found[1] else "DIFFERENT BYTES")
    own, children = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(f"peak memory {max(own, children):.0f} MB")
