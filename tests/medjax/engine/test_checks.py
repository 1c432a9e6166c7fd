"""Settings of the wrong kind are refused when something is built, in one clear line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medjax
from medjax import adaptive_scale, perturb


@pytest.mark.parametrize("b", [1, 0.1, np.float32(0.1), np.array(0.1), jnp.bfloat16(0.1)])
def test_numbers_of_every_type_are_taken(b):
    perturb(b, key=0)


@pytest.mark.parametrize("values", [np.array([0.1, 0.2]), jnp.ones(3)])
def test_arrays_are_not_one_number(values):
    with pytest.raises(ValueError, match=r"fraction must be one number, got shape \("):
        adaptive_scale(values)


def test_traced_arrays_are_not_one_number():
    with pytest.raises(ValueError, match=r"fraction must be one number, got shape \(2,\)"):
        jax.eval_shape(
            lambda x: perturb(adaptive_scale(x), key=0).init(None),
            jax.ShapeDtypeStruct((2,), "f4"),
        )


@pytest.mark.parametrize("b", [np.ones((3, 1)), jnp.ones((1, 1))])
def test_a_scale_for_each_worker_is_a_list(b):
    # A matrix would scale each coordinate's noise, or nothing in particular.
    with pytest.raises(ValueError, match=r"b must be a list of numbers, got shape \("):
        perturb(b, key=0)
    with pytest.raises(ValueError, match=r"b must be a list of numbers, got shape \("):
        jax.eval_shape(lambda b: perturb(b, key=0).init(None), b)


@pytest.mark.parametrize("bad", [-0.1, np.nan, np.inf])
def test_every_number_of_a_list_is_checked(bad):
    with pytest.raises(ValueError, match="b must be a finite number at least 0, got"):
        perturb(np.array([0.1, bad, 0.2]), key=0)


@pytest.mark.parametrize("b", ["x", None, 1j, True, [[]]])
def test_other_things_are_refused(b):
    with pytest.raises((TypeError, ValueError), match=r"^b must be "):
        perturb(b, key=0)


def test_weights_are_a_list():
    with pytest.raises(ValueError, match=r"weights must be a list of numbers, got shape \(\)"):
        medjax.rules.mean(3.0)
