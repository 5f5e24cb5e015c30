"""Which of several models the data support."""

from collections.abc import Mapping

import numpy as np

from qcord.core.arrays import ArrayLike, FloatArray
from qcord.core.errors import ImplausibleValue
from qcord.core.fit import Fit
from qcord.core.grid import require_same_grid
from qcord.core.image import Image, Step

REFERENCES = (
    "Akaike 1974, doi:10.1109/TAC.1974.1100705",
    "Hurvich and Tsai 1989, doi:10.1093/biomet/76.2.297",
)


def corrected_criterion(squares: FloatArray, n: ArrayLike, parameters: int) -> FloatArray:
    """Akaike's information criterion for normal noise of unknown level, corrected for few measurements.

    Parameters
    ----------
    squares : (v,) array
        Sum of squared residuals.
    n : int or (v,) array
        Measurements.
    parameters : int
        Fitted parameters without the noise level.

    Returns
    -------
    (v,) array
        The lower, the better supported; NaN where there are too few measurements for the correction.

    References
    ----------
    Hurvich and Tsai 1989, doi:10.1093/biomet/76.2.297.
    """
    count, unknowns = np.asarray(n, dtype=float), parameters + 1
    left = count - unknowns - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = count * np.log(squares / count) + 2 * unknowns
        correction = 2 * unknowns * (unknowns + 1) / np.where(left > 0, left, np.nan)
        return np.asarray(plain + correction)


def support(fits: Mapping[str, Fit]) -> dict[str, Image]:
    """How much the data support each of several models, voxel by voxel.

    Parameters
    ----------
    fits : mapping of str to Fit
        Fits of different models to the same measurements.

    Returns
    -------
    dict of str to Image
        Akaike weight [1] of each; they sum to 1, and are NaN where a model was not fitted.

    Raises
    ------
    ImplausibleValue
        If fits are of different measurements, or there are fewer than two.
    GridMismatch
        If they lie on different grids.

    References
    ----------
    Akaike 1974, doi:10.1109/TAC.1974.1100705.
    """
    given = list(fits.values())
    if len(given) < 2 or len({f.measurements for f in given}) > 1:
        counts = {name: f.measurements for name, f in fits.items()}
        raise ImplausibleValue(
            f"Fits of {counts} measurements were given, expected two or more of the same measurements; "
            "fit all models to one series."
        )
    for other in given[1:]:
        require_same_grid(given[0].criterion.grid, other.criterion.grid, given[0].model, other.model)
    criteria = np.stack([np.asarray(f.criterion.data, dtype=float) for f in given])
    with np.errstate(invalid="ignore", over="ignore"):
        likelihood = np.exp(-0.5 * (criteria - criteria.min(axis=0)))
        weights = likelihood / likelihood.sum(axis=0)
    step = Step("support", {"models": list(fits)}, REFERENCES)
    return {name: f.criterion.derive(w, step, unit="1") for (name, f), w in zip(fits.items(), weights, strict=True)}
