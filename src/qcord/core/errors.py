"""Error and warning types: each message says what was found, what was expected and what to do."""


class QcordError(ValueError):
    """Root of all errors that a user of qcord can cause and mend."""


class GridMismatch(QcordError):
    """Two images that must share a grid do not."""


class MissingMetadata(QcordError):
    """A sidecar field, gradient table or landmark that a step needs is absent."""


class ImplausibleValue(QcordError):
    """A value lies outside what physics or anatomy allows, most often a slip of units."""


class UnitMismatch(QcordError):
    """A quantity carries another unit than the one asked for."""


class UnreadableFile(QcordError):
    """A file is absent, truncated or not of the kind that its name says."""


class EmptyRegion(QcordError):
    """A mask, region or selection holds no voxel."""


class UnknownName(QcordError):
    """A model, template, region, level or command is not known."""


class NotIdentifiable(QcordError):
    """The protocol does not determine the parameters of the model."""


class NotWritable(QcordError):
    """The output folder cannot be written to."""


class NotPoolable(QcordError):
    """Values of several sites, scanners or protocols differ too much to be taken as those of one."""


class NotFitted(QcordError, AttributeError):
    """A result was asked of an estimator that has not been fitted yet."""


class QcordWarning(UserWarning):
    """Root of the warnings that carry a meaning for the user."""


class ApproximationWarning(QcordWarning):
    """The result rests on an approximation that the message names."""


class ExtrapolationWarning(QcordWarning):
    """The result lies outside the range that its reference covers."""


class SetApartWarning(QcordWarning):
    """Values were left out of a result for the reason that the message names."""
