"""Power spectra of small tiles of an image, from which the noise is read at high spatial frequency."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from qcord.core.arrays import AnyArray, BoolArray, FloatArray, IntArray

TILE = 16
"""Voxels along the side of a tile: small enough for one relation between two contrasts to hold within it, large
enough to resolve the edge of the acquired part of k-space to an eighth."""

LEAST_TILE = 6
"""Side of the smallest tile that has a frequency in the middle band."""

MIDDLE = (0.2, 0.45)
"""Band [Nyquist] where tissue outweighs noise: tiles with little power here hold little structure."""

HIGH = 0.5
"""Frequency [Nyquist] above which the noise is compared between places."""

QUIET = 0.2
"""Share of tiles that are taken for structureless."""

STEEPEST = 4.0
"""Power of anatomy falls no faster than frequency to minus three to four (edges, texture); a faster fall is the end
of the acquired k-space or a filter."""


SLOPE = 3.0
"""Power of edges falls as frequency to minus three."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """Tiles that lie in tissue.

    Parameters
    ----------
    place : (n, 3) int array
        First voxel along x and y, and slice.
    mean : (n,) array
        Weighted mean of the (first) volume.
    power : (n, t, t) array
        Power of what one volume does not share with another (of two or more volumes), or of the only volume; unit
        of the signal squared, such that white noise has its variance at each frequency.
    structure : (n,) array
        Power in the `MIDDLE` band.
    missing : (n,) array
        Weighted share of voxels that were not measured.
    """

    place: IntArray
    mean: FloatArray
    power: FloatArray
    structure: FloatArray
    missing: FloatArray


def tiles_of(volumes: AnyArray, inside: BoolArray, known: BoolArray | None = None) -> Tiles:
    """Cut volumes into tapered tiles, half overlapping, and take their spectra.

    Parameters
    ----------
    volumes : (x, y, z, n) array
        One or more volumes of equal noise.
    inside : (x, y, z) array
        Voxels that count; a tile is kept where their weighted share exceeds one half (of the largest share, for a mask
        narrower than a tile).
    known : (x, y, z) array, optional
        Voxels that were measured, all by default; what fills the others is smooth, or NaN where nothing is near. The
        power is that of noise which is as strong in them as in the measured ones.

    Returns
    -------
    Tiles
        Possibly none; with several volumes, the mean over consecutive pairs.
    """
    side = min(TILE, volumes.shape[0], volumes.shape[1])
    side -= side % 2
    if side < LEAST_TILE:
        none = np.zeros(0)
        return Tiles(np.zeros((0, 3), dtype=int), none, np.zeros((0, TILE, TILE)), none, none)
    taper = np.hanning(side + 2)[1:-1]
    window = np.outer(taper, taper)
    window /= np.sqrt((window**2).sum())
    share = (_cut(inside.astype(np.float32), side) * window).sum(axis=(-1, -2)) / window.sum()
    chosen = np.argwhere(share > min(0.5, 0.5 * share.max(initial=0)))
    spectra, means = [], []
    for v in range(volumes.shape[-1]):
        cut = _cut(volumes[..., v], side)[tuple(chosen.T)].astype(float)
        mean = _weighted_mean(cut, window) if known is not None else (cut * window).sum(axis=(-1, -2)) / window.sum()
        means.append(mean)
        rest = cut - mean[:, None, None]
        spectra.append(np.fft.fft2((rest if known is None else np.nan_to_num(rest)) * window))
    if len(spectra) == 1 or not len(chosen):
        power = np.abs(spectra[0]) ** 2
    else:
        power = np.mean([_unshared(a, b) for a, b in pairwise(spectra)], axis=0)
    missing = np.zeros(len(chosen))
    if known is not None and len(chosen):
        missing = (_cut(~known, side)[tuple(chosen.T)] * window**2).sum(axis=(-1, -2))
        power = power / (1 - missing)[:, None, None]
    place = chosen * [side // 2, side // 2, 1]
    band = _band(radius(side), MIDDLE[0], MIDDLE[1])
    return Tiles(place, means[0], power, np.asarray(power[:, band].mean(axis=1)), missing)


def radius(side: int) -> FloatArray:
    """Radial frequency [Nyquist] of each coefficient of a tile, (t, t)."""
    k = np.abs(np.fft.fftfreq(side)) * 2
    return np.asarray(np.hypot(k[:, None], k[None]))


def quiet_spectrum(tiles: Tiles) -> FloatArray:
    """Mean power (t, t) over the tiles with the least structure, without what missing voxels scatter."""
    quiet = tiles.structure <= np.quantile(tiles.structure, QUIET)
    power = np.asarray(tiles.power[quiet].mean(axis=0))
    power = (power + np.roll(power[::-1], 1, axis=0)) / 2
    power = np.asarray((power + np.roll(power[:, ::-1], 1, axis=1)) / 2)
    return _without_scatter(power, float(tiles.missing[quiet].mean()))


def _without_scatter(power: FloatArray, missing: float) -> FloatArray:
    """Spectrum of an image of which a share of voxels is missing, as if all were there.

    Voxels that are missing at random scatter their share of the variance of the noise evenly over all frequencies, also
    over those beyond the acquired k-space.
    """
    if missing == 0:
        return power
    noise, _ = noise_part(power)
    return np.asarray(np.maximum((power - missing * noise.mean()) / (1 - missing), 0.01 * power))


def noise_part(power: FloatArray) -> tuple[FloatArray, float]:
    """Spectrum of the noise within a spectrum of image and noise.

    The lowest value that the noise may have is the power at the end of the acquired k-space. Above it lies the power
    of edges, which falls as frequency to minus three and is extrapolated from the middle band; what remains is noise,
    including the double power that a partial Fourier acquisition leaves at low frequency.

    Parameters
    ----------
    power : (t, t) array
        Mean spectrum of tiles, frequencies as `numpy.fft.fftfreq` orders them.

    Returns
    -------
    noise : (t, t) array
        Power of the noise.
    level : float
        Its power at low frequency: what counts for means over many voxels.
    """
    side = power.shape[0]
    distance = radius(side)
    # The axes hold ghosts, the edges of the field of view and the leakage of both.
    k = np.abs(np.fft.fftfreq(side)) * 2
    usable = (np.minimum(k[:, None], k[None]) > 3 / side) & (distance > MIDDLE[0])
    floor = _power_at_the_end(power, usable)
    middle, shoulder = _band(distance, *MIDDLE) & usable, _band(distance, MIDDLE[1], 0.65) & usable
    level, noise = floor, np.minimum(power, floor)
    for _ in range(10):
        if not middle.any() or not shoulder.any():
            break
        edges = max(0.0, float(np.median((power[middle] - level) * distance[middle] ** SLOPE)))
        noise = np.clip(power - edges / np.maximum(distance, 0.1) ** SLOPE, np.minimum(power, floor), power)
        level = max(floor, float(np.median(noise[shoulder])))
    # Tiles were chosen by their power in the middle band, so that band must not be read from them.
    return np.where(distance < MIDDLE[1], level, np.minimum(noise, level)), level


def _power_at_the_end(power: FloatArray, usable: BoolArray) -> float:
    """Power at the highest frequency before it falls faster than that of any anatomy; median over five directions.

    It falls so where k-space was filled with zeros or filtered; without such a fall it is the power at the corner.
    """
    half = power.shape[0] // 2
    k = np.abs(np.fft.fftfreq(2 * half))
    angle = np.arctan2(k[None] + 0 * k[:, None], k[:, None] + 0 * k[None])
    ring = np.round(radius(2 * half) * half).astype(int)
    found = []
    for low, high in pairwise(np.linspace(0, np.pi / 2, 6)):
        ray = usable & (angle >= low - 0.08) & (angle < high + 0.08)
        rings = np.unique(ring[ray])
        if len(rings) == 0:
            continue
        curve = np.array([np.log(np.maximum(power[ray & (ring == r)], 1e-300)).mean() for r in rings])
        end = int(np.argmax(curve + STEEPEST * np.log(rings)))
        # The taper of the tiles smears an edge over two coefficients; step back by as much.
        found.append(curve[end if end == len(rings) - 1 else max(0, end - 2)])
    return float(np.exp(np.median(found))) if found else float(power.min())


def relative_level(tiles: Tiles, noise: FloatArray) -> FloatArray:
    """Noise power of each tile at high frequency over that of ``noise``, (n,)."""
    band = _band(radius(noise.shape[0]), HIGH, 2.0) & (noise > 0.25 * noise.max())
    if not band.any():
        band = noise > 0.25 * noise.max()
    return np.asarray((tiles.power[:, band] / noise[band]).mean(axis=1))


def _band(distance: FloatArray, low: float, high: float) -> BoolArray:
    return np.asarray((distance >= low) & (distance < high))


def _cut(volume: AnyArray, side: int) -> AnyArray:
    """All tiles of each slice, half overlapping: (i, j, z, t, t)."""
    return np.asarray(sliding_window_view(volume, (side, side), axis=(0, 1))[:: side // 2, :: side // 2])


def _weighted_mean(cut: FloatArray, window: FloatArray) -> FloatArray:
    """Mean (n,) of tiles (n, t, t) over their finite voxels, of which each has some."""
    finite = np.isfinite(cut)
    return np.asarray((np.where(finite, cut, 0) * window).sum(axis=(-1, -2)) / (finite * window).sum(axis=(-1, -2)))


def _unshared(first: AnyArray, second: AnyArray) -> FloatArray:
    """Power of what two tiles of different contrast do not share, scaled to the variance of one of them.

    Within a tile one contrast is the other times a factor, displaced by a sub-voxel motion; both are fitted.
    """
    side = first.shape[-1]
    k = 2 * np.pi * np.fft.fftfreq(side)
    slopes = np.stack([np.repeat(k, side), np.tile(k, side)])
    low = _band(radius(side), 0.0, HIGH).ravel()
    a, b = first.reshape(len(first), -1), second.reshape(len(second), -1)
    shift = np.zeros((len(a), 2))
    gain = np.ones(len(a))
    for _ in range(3):
        moved = b[:, low] * np.exp(1j * shift @ slopes[:, low])
        basis = np.stack([moved, 1j * slopes[0, low] * moved, 1j * slopes[1, low] * moved], axis=1)
        parts = np.concatenate([basis.real, basis.imag], axis=2)
        target = np.concatenate([a[:, low].real, a[:, low].imag], axis=1)
        normal = parts @ parts.swapaxes(1, 2)
        normal += np.eye(3) * (1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] + 1e-30)
        gain, *step = np.linalg.solve(normal, parts @ target[..., None])[..., 0].T
        with np.errstate(divide="ignore", invalid="ignore"):
            change = np.nan_to_num(np.stack(step, axis=1) / gain[:, None])
        shift = np.clip(shift + np.clip(change, -0.5, 0.5), -3, 3)
    ramps = np.exp(1j * shift[:, :, None] * k)
    moved = (second * ramps[:, 0, :, None] * ramps[:, 1, None, :]).reshape(len(b), -1)
    fine = ~low
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.real(a[:, fine] * moved[:, fine].conj()).sum(1) / (np.abs(moved[:, fine]) ** 2).sum(1)
    # The factor of the fine structure is diluted by noise where there is little of it: take the larger of the two.
    gain = np.where(np.abs(ratio) > np.abs(gain), np.nan_to_num(ratio), gain)[:, None]
    rest = a - gain * moved
    power = (rest.real**2 + rest.imag**2) / (1 + gain**2)
    return np.asarray(power.reshape(first.shape))
