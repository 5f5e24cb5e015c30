"""Settings of a run, read from TOML and checked."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qcord.core.errors import ImplausibleValue, UnreadableFile


class Settings(BaseModel):
    """What a run does; each has a default that needs no touch.

    Parameters
    ----------
    denoise : bool
        Remove noise components from diffusion series of enough volumes.
    motion : bool
        Correct slice-wise motion of diffusion and transfer series.
    tensor_method : str
        ``wls``, ``iwls`` or ``irls``; see `qcord.maps.tensor.fit_tensor`.
    map_ratio : float
        See `qcord.atlas.extract.extract`.
    centre : str
        Disc at which the middle of the imaged cord is assumed where no landmark says otherwise.
    site : str, optional
        Site as norms name it; by default that of participants.tsv, else the institution of the sidecars.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    denoise: bool = True
    motion: bool = True
    tensor_method: Literal["wls", "iwls", "irls"] = "wls"
    map_ratio: float = Field(default=1.0, gt=0)
    centre: str = "C3/C4"
    site: str | None = None


def read_settings(path: Path | None) -> Settings:
    """Read settings from a TOML file; without one, the defaults.

    Raises
    ------
    UnreadableFile
        If the file is absent or not TOML.
    ImplausibleValue
        If it names an unknown setting or an impossible value.
    """
    if path is None:
        return Settings()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UnreadableFile(f"{path.name} cannot be read as TOML ({error}); correct it.") from error
    try:
        return Settings(**content)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(p) for p in first["loc"])
        known = ", ".join(Settings.model_fields)
        raise ImplausibleValue(
            f"Setting '{name}' in {path.name}: {first['msg'].lower()}; known settings are {known}."
        ) from None
