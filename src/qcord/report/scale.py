"""Factor and unit by which each metric is printed."""

SCALE = {
    "MD": (1e3, "10⁻³ mm²/s"),
    "AD": (1e3, "10⁻³ mm²/s"),
    "RD": (1e3, "10⁻³ mm²/s"),
    "MTR": (1.0, "%"),
    "MTsat": (1.0, "%"),
    "T1": (1.0, "s"),
    **dict.fromkeys(("T2", "T2star"), (1e3, "ms")),
    "R2star": (1.0, "1/s"),
    **dict.fromkeys(("FA", "muFA", "OP", "MK_I", "MK_A", "MK", "AK", "RK", "MKT", "MSK", "f"), (1.0, "")),
    **dict.fromkeys(("ICVF", "ODI", "ISOVF", "MicroFA", "NeuriteFraction", "C_mu", "F"), (1.0, "")),
    **dict.fromkeys(("ihMTR", "ihMTsat"), (1.0, "%")),
    "MWF": (100.0, "%"),
    "T2ie": (1e3, "ms"),
    **dict.fromkeys(("MSD", "D", "Dstar"), (1e3, "10⁻³ mm²/s")),
}
"""Factor and unit by which a metric is printed."""

SYMBOLS = {"percent": "%", "1": "", "mm2": "mm²", "mm2/s": "mm²/s", "deg": "°"}


def shown_unit(metric: str, unit: str) -> tuple[float, str]:
    """Factor and unit by which values of a metric are printed; the unit is empty for pure numbers.

    >>> shown_unit("MD", "mm2/s")
    (1000.0, '10⁻³ mm²/s')
    >>> shown_unit("area T2w", "mm2")
    (1.0, 'mm²')
    """
    return SCALE.get(metric, (1.0, SYMBOLS.get(unit, unit)))
