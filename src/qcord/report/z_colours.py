"""Colours of z, told apart also by those who do not see red or green: blue is low, red is high, white is expected."""

import math

LIMIT = 4.0
"""|z| from which the colour does not change any more."""

BLUES = ("#ffffff", "#c6dcec", "#6fa8d3", "#2e70b0", "#103d73")
REDS = ("#ffffff", "#fbd3c0", "#ee9071", "#c8433f", "#7d0f22")
NO_NORM = "#c9ced4"
"""Gray of what has no norm."""


def z_colour(z: float) -> str:
    """Colour of a z as ``#rrggbb``: white at 0, whole numbers at the anchors, linear between; gray if not finite.

    >>> z_colour(0), z_colour(3), z_colour(-9)
    ('#ffffff', '#c8433f', '#103d73')
    """
    if not math.isfinite(z):
        return NO_NORM
    anchors = REDS if z > 0 else BLUES
    place = min(abs(z), LIMIT) * (len(anchors) - 1) / LIMIT
    below = min(int(place), len(anchors) - 2)
    a, b = (_channels(anchors[below + i]) for i in (0, 1))
    return "#" + "".join(f"{round(x + (y - x) * (place - below)):02x}" for x, y in zip(a, b, strict=True))


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on a colour (relative luminance of WCAG 2)."""
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in _channels(colour)]
    luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "#000000" if luminance > 0.179 else "#ffffff"


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
