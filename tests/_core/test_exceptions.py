import inspect

import pytest

from napari_lungfm import LungFMError, LungFMWarning
from napari_lungfm._core import exceptions

ERRORS = [
    member
    for _, member in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(member, LungFMError)
]


@pytest.mark.parametrize("error", [e for e in ERRORS if e is not LungFMError])
def test_every_error_is_also_of_a_built_in_kind(error):
    built_in = [
        base
        for base in error.__mro__
        if base.__module__ == "builtins" and base not in (Exception, BaseException, object)
    ]
    assert built_in
    assert str(error("one line")) == "one line"


@pytest.mark.parametrize(
    ("error", "kinds", "code"),
    [
        (exceptions.UsageError, ValueError, 2),
        (exceptions.ConfigError, ValueError, 2),
        (exceptions.PromptError, ValueError, 2),
        (exceptions.InputFileError, OSError, 1),
        (exceptions.DicomError, (OSError, ValueError), 1),
        (exceptions.GeometryError, ValueError, 1),
        (exceptions.DataError, ValueError, 1),
        (exceptions.OutputError, OSError, 1),
        (exceptions.MissingDependencyError, ImportError, 1),
    ],
)
def test_kinds_and_exit_codes(error, kinds, code):
    for kind in kinds if isinstance(kinds, tuple) else (kinds,):
        with pytest.raises(kind):
            raise error("one line")
    assert error.exit_code == code


def test_the_warning_is_a_user_warning():
    assert issubclass(LungFMWarning, UserWarning)
    assert not issubclass(LungFMWarning, LungFMError)
