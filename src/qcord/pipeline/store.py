"""Writing: images, tables and text appear under their name only when they are complete."""

import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from qcord.core.arrays import AnyArray
from qcord.core.errors import NotWritable
from qcord.core.grid import Grid, reorient
from qcord.core.image import Image, Step
from qcord.core.units import bids_unit
from qcord.ingest.nifti import read_sidecar

COMPRESSION = 4
"""gzip level: nearly the size of the default at half its time."""

DATASET_URL = "https://github.com/qcord/qcord"


IGNORED = (
    *("*.html", "*_xfm.*", "xfm", "*_dwimap.*", "*_desc-*_dwi.bval", "*_desc-*_dwi.bvec"),
    *(
        "*_dwi.bdelta",
        "*_dwi.bvec2",
        "*_ihMTRmap.*",
        "*_ihMTsat.*",
        "*_BPFmap.*",
        "*_kfmap.*",
        "*_T2bmap.*",
        "*_T2iemap.*",
    ),
    *("*_metrics.*", "logs/", "metrics.parquet", ".partial-*"),
)
"""What BIDS has no rule for yet (transforms, diffusion maps, gradients of derivatives) or leaves to pipelines."""


def package_version() -> str:
    """Version of qcord."""
    return version("qcord")


def require_writable(folder: Path) -> None:
    """Make a folder and check that files can be created in it.

    Raises
    ------
    NotWritable
        With the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise NotWritable(
            f"Output folder {folder} cannot be written to ({error.strerror or error}); choose another or free it."
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file completely or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise NotWritable(
            f"{path.name} cannot be written ({error.strerror or error}); free space or rights."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 completely or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file; NaN becomes null."""
    write_text(path, json.dumps(_plain(content), indent=1, ensure_ascii=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a tab-separated table; missing values are ``n/a`` as BIDS wants."""
    write_text(path, table.to_csv(sep="\t", index=False, na_rep="n/a", lineterminator="\n", float_format="%.9g"))


def image_bytes(data: AnyArray, grid: Grid, *, intent: str = "none") -> bytes:
    """NIfTI-1 content, gzip-compressed, with the axes in the order of the file that the grid came from."""
    stored, own = reorient(data, grid, grid.stored)
    if stored.dtype == bool:
        stored = stored.astype(np.uint8)
    if stored.dtype.kind == "f":
        stored = stored.astype(np.float32)
    nifti = nib.Nifti1Image(np.ascontiguousarray(stored), own.affine)
    nifti.set_qform(own.affine, 1)
    nifti.set_sform(own.affine, 1)
    nifti.header.set_xyzt_units("mm", "sec")
    nifti.header.set_intent(intent)
    nifti.header["descrip"] = f"qcord {package_version()}".encode()
    return gzip.compress(nifti.to_bytes(), COMPRESSION, mtime=0)


def write_image(path: Path, image: Image, sidecar: Mapping[str, Any] | None = None) -> None:
    """Write an image and its sidecar."""
    write_bytes(path, image_bytes(image.data, image.grid))
    content = {"Units": bids_unit(image.unit), "SkullStripped": False, **history_of(image), **(sidecar or {})}
    write_json(sidecar_of(path), content)


def sidecar_of(path: Path) -> Path:
    """Path of the JSON file beside an image."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def made_by_qcord(path: Path) -> bool:
    """Whether the sidecar beside an image says that qcord wrote it."""
    sidecar = sidecar_of(path)
    makers = read_sidecar(sidecar).get("GeneratedBy") if sidecar.is_file() else None
    return isinstance(makers, list) and any(isinstance(m, dict) and m.get("Name") == "qcord" for m in makers)


def history_of(image: Image) -> dict[str, Any]:
    """What was done to an image, for its sidecar."""
    references = list(dict.fromkeys(r for step in image.history for r in step.references))
    content: dict[str, Any] = {"GeneratedBy": [{"Name": "qcord", "Version": package_version()}]}
    if image.history:
        content["History"] = [_step(s) for s in image.history]
    if references:
        content["EstimationReference"] = references
    return content


def _step(step: Step) -> dict[str, Any]:
    return {"Name": step.name, "Settings": dict(step.settings)}


@contextmanager
def staged(final: Path) -> Iterator[Path]:
    """Collect files in a hidden folder beside ``final``; on success they replace what was there, else all is undone.

    Parameters
    ----------
    final : path
        Folder of the data set into which the files move, keeping their relative paths.
    """
    require_writable(final)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=final))
    try:
        yield partial
        _publish(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _publish(partial: Path, final: Path) -> None:
    for file in sorted(p for p in partial.rglob("*") if p.is_file()):
        target = final / file.relative_to(partial)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
        except OSError as error:
            raise NotWritable(
                f"{target.name} cannot be put in place ({error.strerror or error}); free space or rights."
            ) from error


def write_dataset_description(root: Path, sources: Mapping[str, str]) -> None:
    """Describe the output folder as a BIDS derivative data set, with what its validator should leave alone."""
    write_json(
        root / "dataset_description.json",
        {
            "Name": "qcord outputs",
            "Authors": ["qcord"],
            "BIDSVersion": "1.11.1",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "qcord", "Version": package_version(), "CodeURL": DATASET_URL}],
            "DatasetLinks": dict(sources),
        },
    )
    write_text(root / ".bidsignore", "\n".join(IGNORED) + "\n")


def _plain(value: Any) -> Any:
    """Turn NumPy values, paths and non-finite numbers into what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)
