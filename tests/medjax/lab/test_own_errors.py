"""Errors in functions of one's own: whose they are, and what isn't one."""

from functools import partial, singledispatch

import pytest

from medjax.lab.settings.own import explained


def leave():
    try:
        raise ImportError("nothing there")
    except ImportError as error:
        raise SystemExit("pip install it") from error


def fail(reason):
    raise KeyError(reason)


def test_who_leaves_leaves():
    with pytest.raises(SystemExit, match="pip install it"), explained({"mine": leave}):
        leave()


def test_a_partial_function_is_where_its_function_is():
    mine = partial(fail, "tau")
    with (
        pytest.raises(ValueError, match=r"^mine: KeyError: 'tau' \(test_own_errors.py, line \d+\)"),
        explained({"mine": mine}),
    ):
        mine()


def test_others_errors_stay_theirs():
    with (
        pytest.raises(TypeError, match="requires at least 1 positional argument"),
        explained({"mine": partial(print)}),
    ):
        singledispatch(len)()
