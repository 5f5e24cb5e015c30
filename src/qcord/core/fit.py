"""Result of a fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from qcord.core.errors import UnknownName
from qcord.core.image import Image


@dataclass(frozen=True, eq=False)
class Fit:
    """Maps of a model, with their errors.

    Parameters
    ----------
    model : str
        Name of the model.
    maps : mapping of str to Image
        Metric name to map; NaN where `flag` is not usable.
    std : mapping of str to Image
        Standard error of each map, same unit, same keys; where there is a bias map, the standard error of the
        value with its bias taken off. Root of the squares of the part by noise and of `shifts`.
    rmse : Image
        Root mean square of the residuals, unit of the signal; NaN where no degree of freedom is left.
    flag : Image
        `qcord.core.flags.Flag` of each voxel.
    criterion : Image
        Akaike's information criterion of the fit, corrected for few measurements; see `qcord.estimate.compare`.
    bias : mapping of str to Image
        How much the noise is expected to have raised each map, same unit. ``map - bias`` is what to average
        over a region and what an interval belongs to; a map without an entry has no known bias.
    shifts : mapping of str to mapping of str to Image
        Given parameter whose error is known, such as B1, to metric, to the signed change of its map, same unit, that
        one standard error more of the given parameter causes. Neighbouring voxels share such an error, so that it
        does not average out over a region.
    noise_std : mapping of str to Image
        Part of `std` by noise, of the metrics that have shifts.
    """

    model: str
    maps: Mapping[str, Image]
    std: Mapping[str, Image]
    rmse: Image
    flag: Image
    criterion: Image
    bias: Mapping[str, Image] = field(default_factory=dict)
    shifts: Mapping[str, Mapping[str, Image]] = field(default_factory=dict)
    noise_std: Mapping[str, Image] = field(default_factory=dict)

    @property
    def measurements(self) -> int:
        """Number of measurements a voxel that were fitted."""
        steps = [step.settings["measurements"] for step in self.criterion.history if "measurements" in step.settings]
        return int(steps[-1]) if steps else 0

    def shifts_of(self, metric: str) -> tuple[Image, ...]:
        """Signed changes of one map by one standard error of each given parameter whose error is known."""
        return tuple(maps[metric] for maps in self.shifts.values() if metric in maps)

    def __getitem__(self, metric: str) -> Image:
        if metric not in self.maps:
            raise UnknownName(f"This fit of {self.model} has no map '{metric}'; it has {', '.join(self.maps)}.")
        return self.maps[metric]
