"""What is known of people within sites within manufacturers: estimates and sums that a norm keeps."""

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
    """

    name: tuple[str, ...]
    manufacturer: tuple[str, ...]
    count: FloatArray
    weight: FloatArray
    columns: FloatArray
    value: FloatArray


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
        Logarithms of spreads: `within`, `site`, `manufacturer`, `smooth`, then each manufacturer's within and site.
    variances_covariance : (d, d) array
        Their covariance.
    coefficients, covariance : (p + m,), (p + m, p + m) array
        Effects of the columns and shifts of the manufacturers.
    coefficients_slope, covariance_slope : (d, p + m), (d, p + m, p + m) array
        How both change with the variances.
    sites : Sites
        What is known of each site.
    deviating : Deviating
        Share of sites whose shifts are wider, and how much.
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
