"""What may be caught as what, and how a damaged file becomes one error."""

import lzma
import tokenize
import zipfile

import pytest

from mfimage import errors
from mfimage.errors import (
    DataError,
    Interrupted,
    MfimageError,
    ModelError,
    ResourceError,
    UsageError,
    boundary,
    reason_of,
)


def test_every_error_is_an_mfimage_error_but_an_interruption_which_nothing_swallows():
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BaseException)
    ]
    kinds = [kind for kind in kinds if not issubclass(kind, UserWarning)]
    assert {kind for kind in kinds if not issubclass(kind, MfimageError)} == {Interrupted}
    assert {kind.exit_code for kind in kinds if kind is not Interrupted} == {1, 2, 3, 4, 5, 6}

    def sweep():
        try:
            raise Interrupted(15, "saved step 3")
        except Exception:
            return "swallowed"

    with pytest.raises(KeyboardInterrupt) as stop:
        sweep()
    assert (stop.value.exit_code, str(stop.value)) == (143, "saved step 3")


RAISED = [
    OverflowError("int too large"),
    RecursionError("too deep"),
    lzma.LZMAError("corrupt"),
    NotImplementedError("compression type 99"),
    tokenize.TokenError("EOF in multi-line statement"),
    KeyError("name"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    zipfile.BadZipFile("no zip"),
    AssertionError(),
    UsageError("alpha lies elsewhere"),
]


@pytest.mark.parametrize("raised", RAISED, ids=lambda error: type(error).__name__)
def test_whatever_a_reader_raises_names_the_file_and_says_why(raised):
    with (
        pytest.raises(ModelError, match=r"^f\.json: damaged \(") as caught,
        boundary(ModelError, "f.json: damaged"),
    ):
        raise raised
    assert reason_of(raised) in str(caught.value)
    assert caught.value.__cause__ is raised
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("passes", [ModelError("already said"), ResourceError("full"), MemoryError()])
def test_what_is_no_fault_of_the_file_passes(passes):
    with pytest.raises(type(passes)) as caught, boundary(ModelError, "f.json"):
        raise passes
    assert caught.value is passes


def test_a_stop_passes():
    with pytest.raises(Interrupted), boundary(DataError, "f"):
        raise Interrupted(2, "saved")


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (KeyError("name"), "KeyError: 'name'"),
        (AssertionError(), "AssertionError"),
        (ValueError("two\n  lines"), "two lines"),
        (DataError("said in words"), "said in words"),
        (ValueError("x" * 999), "x" * 200),
    ],
)
def test_reasons_are_one_line(raised, reason):
    assert reason_of(raised) == reason
