"""How many components of a patch carry signal, and the variance of its noise."""

import numpy as np

from qcord.core.arrays import FloatArray, IntArray

REFERENCES = (
    "Veraart et al. 2016, doi:10.1016/j.neuroimage.2016.08.016",
    "Cordero-Grande et al. 2019, doi:10.1016/j.neuroimage.2019.06.039",
)


def split_spectrum(eigenvalues: FloatArray, rows: FloatArray) -> tuple[IntArray, FloatArray]:
    """Split the eigenvalues of patches into signal and noise by the Marchenko-Pastur law.

    The noise variance that the mean of the smallest eigenvalues gives must not be smaller than the one that their
    range gives; the largest set of them for which that holds is noise.

    Parameters
    ----------
    eigenvalues : (b, m) array
        Of the Gram matrix ``X.T @ X`` of each patch X (rows, m), ascending; unit of the signal squared.
    rows : (b,) array
        Number of rows of X that hold data, at least 2.

    Returns
    -------
    components : (b,) int array
        Number of signal components; the rank of the patch at most.
    variance : (b,) array
        Variance of the noise, unit of the signal squared.

    References
    ----------
    Veraart et al. 2016, doi:10.1016/j.neuroimage.2016.08.016, with the degrees of freedom of
    Cordero-Grande et al. 2019, doi:10.1016/j.neuroimage.2019.06.039: signal components take theirs
    from rows and columns alike.
    """
    columns = eigenvalues.shape[1]
    n = np.asarray(rows, dtype=float)[:, None]
    rank = np.minimum(n, columns)
    # Position r in the list of those eigenvalues that rank allows; the others are zero by construction.
    r = np.arange(columns)[None] - (columns - rank) + 1
    possible = r >= 1
    value = np.where(possible, np.maximum(eigenvalues, 0), 0)
    noise = np.maximum(r, 1)
    freedom = np.maximum(n, columns) - (rank - noise)
    from_mean = np.cumsum(value, axis=1) / (noise * freedom)
    smallest = np.take_along_axis(value, (columns - rank).astype(int), axis=1)
    from_range = (value - smallest) / (4 * np.sqrt(noise * freedom))
    fits = possible & (from_range <= from_mean)
    last = columns - 1 - np.argmax(fits[:, ::-1], axis=1)
    variance = np.take_along_axis(from_mean, last[:, None], axis=1)[:, 0]
    return columns - 1 - last, variance
