"""The static field: what bone, fat, lungs and air around the neck do to it, after shimming."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy import fft, ndimage

from qcord.core.arrays import FloatArray
from qcord.phantom.body import HIGHEST, LOWEST, Body
from qcord.phantom.neck import paint_neck
from qcord.template import tables

SUSCEPTIBILITY = MappingProxyType(
    {
        **{"air": 0.35, "lung": -2.41, "fat": -8.92, "muscle": -9.03, "marrow": -9.7, "bone": -11.1},
        **{"disc": -9.055, "ligament": -9.03, "nerve": -9.05, "blood": -9.05, "fluid": -9.05, "cord": -9.07},
    }
)
"""Magnetic susceptibility [ppm] (digital phantom of the shimming toolbox, verified; ligament, nerve and blood are
assumed)."""

HZ_PER_PPM = 42.577
"""Proton frequency [Hz] of a millionth of a tesla."""

SPACING = 2.5
"""Distance [mm] of the points of the lattice."""

HALF_WIDTH, FRONT, BACK = 180.0, 130.0, 150.0
"""Extent [mm] of the lattice to the sides, in front of and behind the cord at C4/C5."""

SHIM_HALF_WIDTH, SHIM_HALF_LENGTH = 20.0, 40.0
"""Half sizes [mm] of the box around the cord in which the shim makes the field even, across and along."""

SHIM_DISC = "C3/C4"
_SLAB = 60_000


@dataclass(frozen=True, eq=False)
class FieldMap:
    """Off-resonance on a lattice.

    Parameters
    ----------
    corner : (3,) array
        World coordinates [mm] of the first point.
    spacing : float
        Distance [mm] of the points along world axes.
    values : (x, y, z) array
        Off-resonance [Hz].
    """

    corner: FloatArray
    spacing: float
    values: FloatArray

    def at(self, points: FloatArray) -> FloatArray:
        """Off-resonance (...) [Hz] at world points (..., 3), linear between the points of the lattice."""
        index = np.moveaxis((np.asarray(points) - self.corner) / self.spacing, -1, 0)
        flat = index.reshape(3, -1)
        return np.asarray(ndimage.map_coordinates(self.values, flat, order=1, mode="nearest").reshape(index.shape[1:]))

    def gradient(self, points: FloatArray, direction: FloatArray, reach: float = 2.5) -> FloatArray:
        """Derivative (...) [Hz/mm] at world points (..., 3) along a unit vector (3,), over twice ``reach`` [mm]."""
        return np.asarray((self.at(points + reach * direction) - self.at(points - reach * direction)) / (2 * reach))


def dipole_field(susceptibility: FloatArray, spacing: tuple[float, float, float]) -> FloatArray:
    """Relative change of the field along the last axis.

    Parameters
    ----------
    susceptibility : (x, y, z) array
        Susceptibility less that of what surrounds the lattice, the main field along z; its unit is that of the result.
    spacing : tuple of float
        Distance of the points along each axis.

    Returns
    -------
    (x, y, z) array
        Change of the field at the nuclei (with the sphere of Lorentz) over the main field.

    Notes
    -----
    The lattice repeats itself; leave room around what it holds.

    References
    ----------
    Salomir, de Senneville and Moonen 2003, doi:10.1002/cmr.b.10083;
    Marques and Bowtell 2005, doi:10.1002/cmr.b.20034.
    """
    shape = susceptibility.shape
    x = fft.fftfreq(shape[0], spacing[0])[:, None, None]
    y = fft.fftfreq(shape[1], spacing[1])[None, :, None]
    z = fft.rfftfreq(shape[2], spacing[2])[None, None, :]
    square = x**2 + y**2 + z**2
    square[0, 0, 0] = 1
    kernel = (1 / 3 - z**2 / square).astype(np.float32)
    kernel[0, 0, 0] = 0
    spectrum = fft.rfftn(susceptibility.astype(np.float32)) * kernel
    return np.asarray(fft.irfftn(spectrum, s=shape))


def neck_field(body: Body, tesla: float) -> FieldMap:
    """Off-resonance of a subject in a magnet along z, with first- and second-order shims set around the cord."""
    corner = body.position + np.array([-HALF_WIDTH, -BACK, LOWEST])
    extent = (2 * HALF_WIDTH, BACK + FRONT, HIGHEST - LOWEST)
    shape = tuple(int(e / SPACING) + 1 for e in extent)
    chi = _neck_susceptibility(body, corner, shape)
    # the neck goes on above and below, beside it there is air
    room = [fft.next_fast_len(int(1.4 * n), real=True) - n for n in shape]
    before = [r // 2 for r in room]
    sides = [(b, r - b) for b, r in zip(before, room, strict=True)]
    padded = np.pad(chi, [*sides[:2], (0, 0)])
    padded = np.pad(padded, [(0, 0), (0, 0), sides[2]], mode="edge")
    inner = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
    ppm = dipole_field(padded, (SPACING,) * 3)[inner]
    return _shimmed(FieldMap(corner, SPACING, np.asarray(ppm * HZ_PER_PPM * tesla, dtype=np.float32)), body)


def _neck_susceptibility(body: Body, corner: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Susceptibility [ppm] less that of air."""
    above_air = {t: np.array([v - SUSCEPTIBILITY["air"]]) for t, v in SUSCEPTIBILITY.items()}
    values = np.zeros(int(np.prod(shape)), dtype=np.float32)
    for start in range(0, len(values), _SLAB):
        rows = np.arange(start, min(start + _SLAB, len(values)))
        points = corner + SPACING * np.stack(np.unravel_index(rows, shape), axis=-1)
        coordinates = body.project(points)
        painted = paint_neck(coordinates, body.shape, above_air, SPACING)[:, 0]
        x, y, height = coordinates.T
        section = body.shape.at(height)
        painted[section.canal_radius(x, y) <= 1] = above_air["fluid"][0]
        painted[np.hypot(*section.disc(x, y)) <= 1] = above_air["cord"][0]
        values[rows] = painted
    return values.reshape(shape)


def _shimmed(field: FieldMap, body: Body) -> FieldMap:
    """Take off the polynomial of second order that fits the field best in the box around the cord."""
    centre = body.place([0, 0, tables.disc_heights()[SHIM_DISC]])
    across = np.linspace(-SHIM_HALF_WIDTH, SHIM_HALF_WIDTH, 9)
    along = np.linspace(-SHIM_HALF_LENGTH, SHIM_HALF_LENGTH, 17)
    box = np.stack(np.meshgrid(across, across, along, indexing="ij"), axis=-1).reshape(-1, 3)
    terms = np.linalg.lstsq(_polynomials(box), field.at(centre + box), rcond=None)[0]
    axes = [field.corner[i] - centre[i] + field.spacing * np.arange(n) for i, n in enumerate(field.values.shape)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    fitted = (terms[0] + terms[1] * x + terms[4] * x * x + terms[7] * x * y) + (terms[2] * y + terms[5] * y * y)
    fitted = fitted + (terms[3] + terms[8] * x + terms[9] * y + terms[6] * z) * z
    return FieldMap(field.corner, field.spacing, np.asarray(field.values - fitted, dtype=np.float32))


def _polynomials(points: FloatArray) -> FloatArray:
    x, y, z = points.T
    return np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
