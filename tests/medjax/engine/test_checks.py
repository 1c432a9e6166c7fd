"""Settings of the wrong kind are refused when something is built, in one clear line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medjax


@pytest.mark.parametrize("b", [1, 0.1, np.float32(0.1), np.array(0.1), jnp.bfloat16(0.1)])
def test_numbers_of_every_type_are_taken(b):
    medjax.perturb(b)


@pytest.mark.parametrize("b", [np.array([0.1, 0.2]), jnp.ones(3)])
def test_arrays_are_not_one_number(b):
    # They would scale the noise of each coordinate, or of nothing in particular.
    with pytest.raises(ValueError, match=r"b must be one number, got shape \("):
        medjax.perturb(b)


def test_traced_arrays_are_not_one_number():
    with pytest.raises(ValueError, match=r"b must be one number, got shape \(2,\)"):
        jax.eval_shape(lambda b: medjax.perturb(b).init(None), jax.ShapeDtypeStruct((2,), "f4"))


@pytest.mark.parametrize("b", ["x", None, 1j, True, [[]]])
def test_other_things_are_refused(b):
    with pytest.raises((TypeError, ValueError), match=r"^b must be "):
        medjax.perturb(b)


def test_weights_are_a_list():
    with pytest.raises(ValueError, match=r"weights must be a list of numbers, got shape \(\)"):
        medjax.rules.mean(3.0)
