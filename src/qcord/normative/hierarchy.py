"""What is known of people within sites within manufacturers and studies: estimates and sums that a norm keeps."""

from dataclasses import dataclass

from qcord.core.arrays import FloatArray
from qcord.normative.deviating import NONE, Deviating


@dataclass(frozen=True, eq=False)
class Sites:
    """Weighted sums of each site, at the estimates.

    Parameters
    ----------
    name, manufacturer : (s,) tuple of str
        Sites.
    count : (s,) array
        People.
    weight : (s,) array
        Sum of the weights of its people.
    columns : (s, p) array
        Weighted sum of the columns of the design.
    value : (s,) array
        Weighted sum of the values.
    study : (s,) tuple of str
        Study of each site; empty where the norm knows of none.
    """

    name: tuple[str, ...]
    manufacturer: tuple[str, ...]
    count: FloatArray
    weight: FloatArray
    columns: FloatArray
    value: FloatArray
    study: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Estimates with errors; values are in units of ``spread`` about ``centre``.

    Parameters
    ----------
    centre, spread : float
        Mean and standard deviation of all values, in their unit.
    manufacturers : (m,) tuple of str
        Those with people.
    variances : (d,) array
        Logarithms of spreads: `within`, `site`, `manufacturer`, `smooth`, then each manufacturer's within and site,
        then `study`, if people came with one.
    variances_covariance : (d, d) array
        Their covariance.
    coefficients, covariance : (p + m + c,), (p + m + c, p + m + c) array
        Effects of the columns, shifts of the manufacturers and of the studies.
    coefficients_slope, covariance_slope : (d, p + m + c), (d, p + m + c, p + m + c) array
        How both change with the variances.
    sites : Sites
        What is known of each site.
    deviating : Deviating
        Share of sites whose shifts are wider, and how much.
    studies : (c,) tuple of str
        Those whose shift is known.
    """

    centre: float
    spread: float
    manufacturers: tuple[str, ...]
    variances: FloatArray
    variances_covariance: FloatArray
    coefficients: FloatArray
    covariance: FloatArray
    coefficients_slope: FloatArray
    covariance_slope: FloatArray
    sites: Sites
    deviating: Deviating = NONE
    studies: tuple[str, ...] = ()

    @property
    def studied(self) -> bool:
        """Whether studies have a spread of their own."""
        return len(self.variances) > 4 + 2 * len(self.manufacturers)
