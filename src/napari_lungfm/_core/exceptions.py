"""Errors and warnings of the package.

Every error that a user can cause is a `LungFMError` whose message is one line: what was wrong,
where, and what to do. Each also inherits the built-in kind, so that ``except ValueError`` works
for callers who do not know this package. `exit_code` is what the command line returns for it.
"""

from typing import ClassVar


class LungFMError(Exception):
    """Base class of all errors that this package raises on purpose."""

    #: What ``napari-lungfm-bench`` exits with: 2 = the call was wrong, 1 = the work failed.
    exit_code: ClassVar[int] = 1


class UsageError(LungFMError, ValueError):
    """The caller asked for something that makes no sense (unknown name, conflicting options)."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file is not valid."""


class PromptError(UsageError):
    """A prompt cannot be used: outside the volume, of zero area, contradictory."""


class InputFileError(LungFMError, OSError):
    """An input file or folder is missing, unreadable or damaged."""


class DicomError(InputFileError, ValueError):
    """DICOM data that cannot be used, named precisely."""


class GeometryError(LungFMError, ValueError):
    """Two grids that must agree do not, or a grid is invalid."""


class DataError(LungFMError, ValueError):
    """Voxel data that cannot be used: NaN, wrong labels, no tumour."""


class OutputError(LungFMError, OSError):
    """An output could not be written; nothing half-written was left."""


class MissingDependencyError(LungFMError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class LungFMWarning(UserWarning):
    """Something was put right or assumed; the result is usable and the message says why."""
