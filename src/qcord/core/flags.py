"""What became of a voxel or a region, each with the sentence for the user."""

from enum import IntEnum


class Flag(IntEnum):
    """Outcome of an estimate; 0 is good, all others say why a value is missing or to be doubted."""

    OK = 0
    OUTSIDE = 1
    NO_SIGNAL = 2
    NOT_FINITE = 3
    UNPHYSICAL = 4
    AT_BOUND = 5
    NOT_CONVERGED = 6
    OUTLIERS = 7
    NO_DATA = 8
    FEW_VOXELS = 9
    NOT_SEPARABLE = 10
    ASSUMED_LEVEL = 11
    NO_ERROR = 12
    UNDETERMINED = 13
    NO_VALUE = 14

    @property
    def sentence(self) -> str:
        """What the flag means."""
        return _SENTENCES[self]

    @property
    def word(self) -> str:
        """Short form for tables."""
        return self.name.lower()


_SENTENCES = {
    Flag.OK: "The value is a regular estimate.",
    Flag.OUTSIDE: "The voxel lies outside the mask; nothing was estimated.",
    Flag.NO_SIGNAL: "The signal is zero, negative or below the noise; no value.",
    Flag.NOT_FINITE: "A measurement is NaN or infinite; no value.",
    Flag.UNPHYSICAL: "The estimate lies outside what physics allows; no value.",
    Flag.AT_BOUND: "The estimate was held at a bound of its parameter; read it with caution.",
    Flag.NOT_CONVERGED: "The iteration did not settle; read the value with caution.",
    Flag.OUTLIERS: "More than a third of the measurements were rejected as outliers; read the value with caution.",
    Flag.NO_DATA: "No voxel of the region carries a value here.",
    Flag.FEW_VOXELS: "The region fills less than one voxel; partial volume governs the value.",
    Flag.NOT_SEPARABLE: "The data do not separate this region from its neighbours; no value.",
    Flag.ASSUMED_LEVEL: "No landmark fixes the level; the position along the cord was assumed.",
    Flag.NO_ERROR: "An error is not known here; the value has no interval.",
    Flag.NO_VALUE: "One of the maps has no value here: noise put what it is made of out of its range. The others have.",
    Flag.UNDETERMINED: "The data leave a parameter open, as its standard error says; do not read it on its own.",
}
