"""Errors say how to fix what they report."""

import inspect
import pickle

import pytest

from gdino_core import errors
from gdino_core.errors import ClientError, ConfigError, GdinoError, ImageError, InputError, RequestRejected


def test_message_and_fix_stand_on_two_lines() -> None:
    error = ConfigError("batch 0 is too small", fix="use 1")
    assert str(error) == "batch 0 is too small\n  fix: use 1"
    assert (error.message, error.fix) == ("batch 0 is too small", "use 1")


def test_without_a_fix_there_is_no_second_line() -> None:
    assert str(ConfigError("batch 0 is too small")) == "batch 0 is too small"


def test_an_error_keeps_its_fix_when_it_crosses_a_process() -> None:
    error = pickle.loads(pickle.dumps(ImageError("no picture", fix="send one")))
    assert str(error) == "no picture\n  fix: send one"


def test_a_program_that_catches_the_base_catches_all() -> None:
    classes = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]
    assert all(issubclass(cls, GdinoError) for cls in classes)
    assert sorted(cls.__name__ for cls in classes) == sorted(errors.__all__)


@pytest.mark.parametrize("name", errors.__all__)
def test_the_tree_in_the_docstring_shows_every_error(name: str) -> None:
    assert errors.__doc__ is not None
    assert name in errors.__doc__


def test_what_a_user_can_mend_is_told_from_what_the_network_did() -> None:
    assert issubclass(ImageError, InputError)
    assert issubclass(RequestRejected, ClientError)
    assert not issubclass(RequestRejected, InputError)
