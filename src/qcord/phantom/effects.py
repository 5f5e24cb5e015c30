"""What goes wrong in a scan: switches of all effects, none of which is on by default."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from qcord.phantom.checks import require_name, require_range
from qcord.phantom.noise import COMBINATIONS


@dataclass(frozen=True)
class Effects:
    """Effects and their strengths; 0 or False leaves one out.

    Parameters
    ----------
    drift_mm : float
        Standard deviation [mm] of the whole neck's in-plane position at the last volume (`motion.drift`).
    cardiac_mm : float
        Largest forward displacement [mm] of the cord in a heart beat, of slices that are excited at any time of it
        (`physiology.cord_swing`); published: 1 to 1.5.
    pulsation : float
        Relative spread of the cord's velocity within a voxel, by which diffusion-weighted slices lose signal
        (`physiology.pulsation_loss`).
    susceptibility : bool
        Field of bone, fat, lungs and air (`susceptibility.neck_field`): echo-planar images are distorted along the
        phase-encoding axis, gradient echoes lose signal.
    breathing_hz : float
        Standard deviation [Hz] at C7 of the field of breathing (`physiology.breathing_field`); published: about 5.
    eddy_hz : float
        Field [Hz] of eddy currents 40 mm from the isocentre (`eddy.eddy_field`).
    ringing : bool
        Images of a finite part of k-space (`ringing.truncate`).
    transmit : float
        Relative standard deviation of the transmit field (`transmit.transmit_field`); it acts on the dural sac in
        series whose model knows B1.
    transmit_mean : float
        Mean of the transmit field.
    channels : int
        Channels of the receive coil.
    combination : str
        How they become one image: ``adaptive`` or ``sum-of-squares`` (`noise.combined_noise`).
    """

    drift_mm: float = 0.0
    cardiac_mm: float = 0.0
    pulsation: float = 0.0
    susceptibility: bool = False
    breathing_hz: float = 0.0
    eddy_hz: float = 0.0
    ringing: bool = False
    transmit: float = 0.0
    transmit_mean: float = 1.0
    channels: int = 1
    combination: str = "sum-of-squares"

    def __post_init__(self) -> None:
        require_range(self.drift_mm, 0, 10, "drift_mm")
        require_range(self.cardiac_mm, 0, 5, "cardiac_mm")
        require_range(self.pulsation, 0, 1, "pulsation")
        require_range(self.breathing_hz, 0, 100, "breathing_hz")
        require_range(self.eddy_hz, 0, 200, "eddy_hz")
        require_range(self.transmit, 0, 0.5, "transmit")
        require_range(self.transmit_mean, 0.3, 2, "transmit_mean")
        require_range(self.channels, 1, 128, "channels")
        require_name(self.combination, COMBINATIONS, "combination of channels")

    def replace(self, **changes: object) -> "Effects":
        """Return a copy with other values."""
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def transmits(self) -> bool:
        """Whether the transmit field differs from its nominal value."""
        return self.transmit > 0 or self.transmit_mean != 1


USUAL: Mapping[str, Mapping[str, object]] = {
    "motion": {"drift_mm": 1.0, "cardiac_mm": 1.2},
    "pulsation": {"pulsation": 0.03},
    "susceptibility": {"susceptibility": True, "breathing_hz": 5.0},
    "eddy": {"eddy_hz": 20.0},
    "ringing": {"ringing": True},
    "transmit": {"transmit": 0.1},
    "coils": {"channels": 8},
}
"""Names of effects for the command line, with the strengths of a common scan (motion and breathing published, see
`Effects`; the others assumed)."""


def usual_effects(*names: str) -> Effects:
    """Effects of the given names at their usual strength; ``all`` stands for all of them.

    Raises
    ------
    UnknownName
        If there is no effect of a name.
    """
    chosen: dict[str, object] = {}
    for name in names:
        require_name(name, ("all", *USUAL), "effect")
        for one in USUAL if name == "all" else (name,):
            chosen.update(USUAL[one])
    return Effects().replace(**chosen)
