"""What a series must hold before it is cleaned."""

import numpy as np

from qcord.core.errors import ImplausibleValue
from qcord.core.series import Series


def require_values(series: Series) -> None:
    """Raise `ImplausibleValue` if a whole volume holds no finite value; names the volumes."""
    dead = np.flatnonzero(~np.isfinite(series.data).any(axis=(0, 1, 2)))
    if len(dead):
        raise ImplausibleValue(
            f"Volume {', '.join(map(str, dead))} of {series.image.label} holds no finite value, expected a "
            "measurement in each; remove it with series.take or read the file again."
        )
