"""Calls of the library with invalid updates, data and stages of a chain."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import medjax
from benchmarks.cases._case import Call
from medjax import attacks, compressors, mixing, noise, partition, rules, servers, theory

_X = np.ones((5, 3), np.float32)
_LABELS = np.arange(20) % 4
_DATA = medjax.stack_workers(np.ones(4, np.float32), [[0], [1], [2, 3]])


def _objective(x: Any, a: Any) -> Any:
    return 0.5 * (x - a) ** 2, {}


def _simulate(optimizer: Any = None, data: Any = _DATA, **settings: Any) -> Any:
    given: dict[str, Any] = {"num_steps": 1, "key": 0} | settings
    tx = medjax.mean_sgd(0.1) if optimizer is None else optimizer
    return jax.eval_shape(
        lambda: medjax.simulate(_objective, jnp.float32(0), data, tx, **given).params
    )


def _update(tx: Any, updates: Any = _X, params: Any = _X[0]) -> Any:
    return jax.eval_shape(lambda: tx.update(updates, tx.init(params))[0])


def _aggregate(rule: Any, updates: Any = _X) -> Any:
    return jax.eval_shape(rule, updates)


def cases() -> Iterator[Call]:
    """Yield every call."""
    for name, (call, message) in _CALLS.items():
        yield Call(name, call, message)


_UPDATES = {
    "no workers": (np.ones((0, 3), np.float32), "an aggregate needs at least 1 worker, got 0"),
    "a scalar": (np.float32(1), "the array is a scalar"),
    "integers": (np.ones((5, 3), int), "the array is int"),
    "bools": (np.ones((5, 3), bool), "the array is bool"),
    "complex numbers": (np.ones((5, 3), np.complex64), "the array is complex64"),
    "nothing": ({}, "stacked updates need at least one array, got an empty pytree"),
    "None": (None, "stacked updates need at least one array"),
    "other numbers of workers": ({"a": _X, "b": _X[:4]}, "disagree on the number of workers"),
    "a leaf of integers": ({"a": _X, "b": np.ones(5, int)}, "leaf ['b'] is int"),
}
_ONE_OF_EACH_FAMILY = {
    "mean": rules.mean(),
    "majority_vote": rules.majority_vote(),
    "median": rules.median(),
    "krum": rules.krum(1),
    "bulyan": rules.bulyan(0),
}

_CALLS: dict[str, tuple[Any, str]] = {
    f"rules.{name} of {what}": (lambda rule=rule, x=x: rule(x), message)
    for name, rule in _ONE_OF_EACH_FAMILY.items()
    for what, (x, message) in _UPDATES.items()
}
_CALLS |= {
    "trimmed_mean(3) of 5": (
        lambda: _aggregate(rules.trimmed_mean(3)),
        "needs 2f < n, got f = 3 and n =",
    ),
    "meamed(3) of 5": (lambda: _aggregate(rules.meamed(3)), "needs 2f < n, got f = 3 and n = 5"),
    "phocas(3) of 5": (lambda: _aggregate(rules.phocas(3)), "needs 2f < n, got f = 3 and n = 5"),
    "krum(3) of 5": (lambda: _aggregate(rules.krum(3)), "needs 2f < n, got f = 3 and n = 5"),
    "mda(3) of 5": (lambda: _aggregate(rules.mda(3)), "f = 3"),
    "cge(5) of 5": (lambda: _aggregate(rules.cge(5)), "needs f < n, got f = 5 and n = 5"),
    "caf(3) of 5": (lambda: _aggregate(rules.caf(3)), "f = 3"),
    "bulyan(1) of 5": (
        lambda: _aggregate(rules.bulyan(1)),
        "needs n >= 4f + 3, got f = 1 and n = 5",
    ),
    "mda of many": (
        lambda: _aggregate(rules.mda(29), np.ones((60, 2), np.float32)),
        "looks at every subset of n - f workers: of n = 60 with f = 29",
    ),
    "monna(reference=5) of 5": (lambda: _aggregate(rules.monna(1, reference=5)), "needs worker 5"),
    "mean(weights) of another n": (
        lambda: _aggregate(rules.mean([1.0, 2.0])),
        "has 2 weights, got",
    ),
    "mean of negative weights": (lambda: rules.mean([1.0, -2.0]), "weights must be a finite"),
    "mean of weights 0": (lambda: rules.mean([0.0, 0.0]), "with a positive sum"),
    "mean of no weights": (lambda: rules.mean([]), "weights must be"),
    "mean of weights in a table": (
        lambda: rules.mean(np.ones((1, 1))),
        "weights must be a list of num",
    ),
    "centered_clipping from other shapes": (
        lambda: rules.centered_clipping(1.0, start=jnp.ones(2))(_X),
        "start must be of shape (3,), got (2,)",
    ),
    "premixed of a factory": (lambda: mixing.premixed(rules.median), "rule must be built"),  # pyright: ignore
    "aggregate of a factory": (lambda: medjax.aggregate(rules.median), "rule must be built"),  # pyright: ignore
    "aggregate of a name": (lambda: medjax.aggregate("median"), "rule must be built"),  # pyright: ignore
    "aggregate of None": (lambda: medjax.aggregate(None), "rule must be built"),  # pyright: ignore
    "aggregate without a key": (
        lambda: medjax.aggregate(rules.majority_vote(tie="random")),
        "draws random numbers: give aggregate a key",
    ),
    "aggregate by a function of two": (
        lambda: medjax.aggregate(lambda x, y: x[0]),
        "rule <lambda> must take 1 argument, it takes (x, y)",
    ),
    "aggregate by a function that keeps the workers": (
        lambda: _update(medjax.aggregate(lambda x: x)),
        "must drop the worker axis and return shape (3,), got (5, 3)",
    ),
    "aggregate by a kind of rules": (lambda: medjax.aggregate(rules.FromFunction), "must be built"),  # pyright: ignore
    "mix by a function to vectors": (
        lambda: _update(medjax.mix(lambda x: x)),
        "mixing <lambda> must return a matrix (m, 5), got shape (5, 3)",
    ),
    "mix of a factory": (lambda: medjax.mix(mixing.nnm), "mixing must be built"),  # pyright: ignore
    "mix without a key": (lambda: medjax.mix(mixing.bucketing(2)), "give mix a key"),
    "nnm(3) of 5": (lambda: _update(medjax.mix(mixing.nnm(3))), "needs 2f < n, got f = 3 and n"),
    "compress by a factory": (lambda: medjax.compress(compressors.sign), "compressor must be buil"),  # pyright: ignore
    "compress by a function to a vector": (
        lambda: _update(medjax.compress(lambda x: x)),  # pyright: ignore
        "must return the decoded vector and the message's bits",
    ),
    "communication by a factory": (
        lambda: compressors.communication(_X, 5, up=compressors.sign),  # pyright: ignore
        "compressor must be built",
    ),
    "compress without a key": (lambda: medjax.compress(compressors.qsgd(4)), "give compress a key"),
    "top_k of too few": (
        lambda: _update(medjax.compress(compressors.top_k(k=4))),
        "keeps 4 coordinates, got an update of d = 3",
    ),
    "error_feedback of 0 workers": (
        lambda: medjax.error_feedback(compressors.sign(), 0),
        "num_workers must be at least 1, got 0",
    ),
    "error_feedback of another n": (
        lambda: _update(medjax.error_feedback(compressors.sign(), 4)),
        "built for 4 workers, got updates stacked from 5",
    ),
    "attack by a factory": (lambda: medjax.attack(attacks.alie, 1), "attack must be built"),  # pyright: ignore
    "attack by a function of one": (
        lambda: medjax.attack(lambda honest: honest[0], 1),
        "it takes (honest)",
    ),
    "attack by a function to all vectors": (
        lambda: _update(medjax.attack(lambda honest, byzantine, key: honest, 1)),
        "must return vectors of shape (1, 3) or (3,), got (4, 3)",
    ),
    "attack on data in a chain": (
        lambda: medjax.attack(attacks.label_flip(10), 1),  # pyright: ignore
        "changes the workers' data",
    ),
    "attack by -1": (lambda: medjax.attack(attacks.alie(), -1), "num_byzantine must be at least 0"),
    "attack by True": (lambda: medjax.attack(attacks.alie(), True), "must be an integer, got True"),
    "attack by all": (lambda: _update(medjax.attack(attacks.ipm(), 5)), "f = 5"),
    "attack without a key": (lambda: medjax.attack(attacks.gaussian(), 1), "give attack a key"),
    "attack by two for one": (
        lambda: medjax.attack(attacks.ipm(), 2, byzantine=[1, 1]),
        "byzantine",
    ),
    "attack by nobody known": (
        lambda: _update(medjax.attack(attacks.ipm(), 1, byzantine=[7])),
        "names worker 7, got n = 5 workers",
    ),
    "attack by a number": (
        lambda: medjax.attack(attacks.ipm(), 1, byzantine=3),  # pyright: ignore
        "byzantine must be last, random, or a list of indices, got 3",
    ),
    "a random mask of nothing": (
        lambda: compressors.random_mask(None),  # pyright: ignore
        "random_mask needs a fraction, got None",
    ),
    "attack by the first": (lambda: medjax.attack(attacks.ipm(), 1, byzantine="first"), "first"),  # pyright: ignore
    "perturb by -1": (
        lambda: medjax.perturb(-1.0, key=0),
        "b must be a finite number at least 0, got -1",
    ),
    "perturb by a factory": (
        lambda: medjax.perturb(1.0, noise.laplace, key=0),  # pyright: ignore
        "noise must be built",
    ),
    "perturb by a name": (lambda: medjax.perturb(1.0, "laplace", key=0), "noise must be built"),  # pyright: ignore
    "perturb by a function to a number": (
        lambda: _update(medjax.perturb(1.0, lambda key, shape, dtype: 1.0, key=0)),  # pyright: ignore
        "must draw shape (3,), got shape ()",
    ),
    "perturb by b of 4 workers": (
        lambda: _update(medjax.perturb(np.ones(4), key=0)),
        "b must be one number or one for each of the 5 workers, got shape (4,)",
    ),
    "perturb without a key": (lambda: medjax.perturb(0.1), "keyword-only argument: 'key'"),  # pyright: ignore
    "noisy_sign by NaN": (lambda: medjax.noisy_sign(math.nan, key=0), "b must be a finite number"),
    "adaptive_scale of ∞": (lambda: medjax.adaptive_scale(math.inf), "fraction must be a finite"),
    "worker_momentum of 1": (lambda: medjax.worker_momentum(1.0, 5), "beta must be below 1, got 1"),
    "worker_momentum of 1.5 workers": (
        lambda: medjax.worker_momentum(0.5, 1.5),  # pyright: ignore
        "num_workers must be an integer, got 1.5",
    ),
    "per_worker of another n": (
        lambda: _update(medjax.per_worker(optax.trace(0.9), 4)),
        "built for 4 workers, got updates stacked from 5",
    ),
    "sgd of a word": (lambda: medjax.mean_sgd("fast"), "learning_rate must be a real number"),  # pyright: ignore
    "sgd of NaN": (lambda: medjax.mean_sgd(math.nan), "learning_rate must be a finite number"),
    "sign_sgd of -1": (lambda: medjax.sign_sgd(-1.0), "must be a finite number at least 0, got -1"),
    "sign_sgd of a tie for plus": (
        lambda: medjax.sign_sgd(0.1, tie="plus"),  # pyright: ignore
        "tie must be one of zero, random; got 'plus'",
    ),
    "noisy_sign_sgd of b None": (
        lambda: medjax.noisy_sign_sgd(0.1, None, key=0),  # pyright: ignore
        "b must be a real",
    ),
    "median_sgd of two": (lambda: medjax.median_sgd(np.ones(2)), "must be one number, got shape"),  # pyright: ignore
    "adam of True": (lambda: servers.adam(True), "learning_rate must be a real number, got True"),
    "a key of words": (lambda: medjax.perturb(1.0, key="k").init(_X[0]), "key"),  # pyright: ignore
    "a key of 1.5": (lambda: medjax.perturb(1.0, key=1.5).init(_X[0]), "key"),  # pyright: ignore
    "a key of another generator": (
        lambda: medjax.perturb(1.0, key=jax.random.key(0, impl="rbg")).init(_X[0]),
        "threefry",
    ),
    "stack_workers of nobody": (lambda: medjax.stack_workers(_LABELS, []), "at least 1 example"),
    "stack_workers of an empty part": (
        lambda: medjax.stack_workers(_LABELS, [[0], []]),
        "every worker needs at least 1 example, got sizes [1, 0]",
    ),
    "stack_workers of -1": (lambda: medjax.stack_workers(_LABELS, [[-1]]), "examples outside 0"),
    "stack_workers of 20": (lambda: medjax.stack_workers(_LABELS, [[20]]), "outside 0, ..., 19"),
    "stack_workers of halves": (lambda: medjax.stack_workers(_LABELS, [[0.5]]), "integer"),  # pyright: ignore
    "stack_workers of masks": (lambda: medjax.stack_workers(_LABELS, [[True, False]]), "integer"),
    "stack_workers of unequal arrays": (
        lambda: medjax.stack_workers((_LABELS, _LABELS[:3]), [[0]]),
        "the arrays must have the same number of examples, got [3, 20]",
    ),
    "stack_workers of nothing": (lambda: medjax.stack_workers((), [[0]]), "number of examples"),
    "by_label of too many classes": (
        lambda: partition.by_label(5)(_LABELS, 4, 0),
        "5 classes per worker are more than the 4 classes",
    ),
    "by_label of too few workers": (
        lambda: partition.by_label(1)(_LABELS, 3, 0),
        "3 workers with 1 classes each cover at most 3 of the 4 classes",
    ),
    "iid for 21": (lambda: partition.iid()(_LABELS, 21, 0), "21 workers need at least 21 examples"),
    "iid for 0": (lambda: partition.iid()(_LABELS, 0, 0), "num_workers must be at least 1, got 0"),
    "iid of seed -1": (lambda: partition.iid()(_LABELS, 2, -1), "seed must be at least 0, got -1"),
    "iid of seed 0.5": (lambda: partition.iid()(_LABELS, 2, 0.5), "seed must be an integer"),  # pyright: ignore
    "shards of too many": (lambda: partition.shards(11)(_LABELS, 2, 0), "need 22 examples, there"),
    "dirichlet of too many": (
        lambda: partition.dirichlet(1.0, min_examples=11)(_LABELS, 2, 0),
        "need 22 examples, there are 20",
    ),
    "by_label of a table of labels": (
        lambda: partition.by_label(1)(_LABELS.reshape(4, 5), 4, 0),
        "labels must be a list, got shape (4, 5)",
    ),
    "theorem5 of 0 steps": (lambda: theory.theorem5(0, 5), "T must be at least 1, got 0"),
    "theorem6 of 1.5": (lambda: theory.theorem6(5, 1.5), "d must be an integer, got 1.5"),  # pyright: ignore
    "median_gap of b -1": (lambda: theory.median_gap([1.0, 2.0], -1.0), "b must be a finite"),
    "median_gap of nobody": (lambda: theory.median_gap([], 1.0), "shape (0,)"),
    "median_quantile of 2": (lambda: theory.median_quantile([1.0], 1.0, 2.0), "q must be"),
    "simulate -1 steps": (lambda: _simulate(num_steps=-1), "num_steps must be at least 0, got -1"),
    "simulate 1.5 steps": (lambda: _simulate(num_steps=1.5), "num_steps must be an integer, got 1"),
    "simulate batches of 0": (lambda: _simulate(batch_size=0), "batch_size must be at least 1"),
    "simulate batches of True": (
        lambda: _simulate(batch_size=True),
        "must be an integer, got True",
    ),
    "simulate chunks of 0": (lambda: _simulate(worker_chunk=0), "worker_chunk must be at least 1"),
    "simulate measured at 0": (lambda: _simulate(eval_every=0), "eval_every must be at least 1"),
    "simulate K without γ": (lambda: _simulate(local_steps=2), "local_lr"),
    "simulate γ without K": (lambda: _simulate(local_lr=0.1), "local_steps"),
    "simulate γ of 0": (
        lambda: _simulate(local_steps=1, local_lr=0.0),
        "local_lr must be a finite",
    ),
    "simulate 4 of 3": (lambda: _simulate(participants=4), "4"),
    "simulate always 3 of 2": (lambda: _simulate(participants=2, always=3), "always"),
    "simulate without a rule": (lambda: _simulate(optax.sgd(0.1)), "must drop the worker axis"),
    "simulate with a rule": (lambda: _simulate(rules.median()), "optimizer"),
    "simulate on a list": (lambda: _simulate(data=[1.0, 2.0]), "data"),
    "simulate of key None": (lambda: _simulate(key=None), "key"),
    "make_mesh of 0": (lambda: medjax.sharding.make_mesh(workers=0), "workers must be at least 1"),
    "make_mesh of 4096": (lambda: medjax.sharding.make_mesh(4096), "needs 4096 devices, there are"),
    "make_mesh of 1.5": (lambda: medjax.sharding.make_mesh(1.5), "workers must be an integer"),  # pyright: ignore
}
