"""Loops of whole steps to be timed: bare gradients, the obvious JAX code, PyTorch, and ByzFL."""

import inspect
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jaxtyping import PyTree

from benchmarks import timing
from benchmarks.libraries import JAX, TORCH, B, torch
from benchmarks.report import optional
from benchmarks.timing import Prepare, Run
from benchmarks.workload import CLASSES, HIDDEN, STEP_SIZE, Workload, is_noisy
from medjax import WorkerData

Step = Callable[[Any, WorkerData], Any]
"""A function from a state and the workers' data to the state after a step."""


def gradients(work: Workload) -> Callable[[PyTree, WorkerData], PyTree]:
    """Return a function that stacks the n local gradients at given parameters."""
    return lambda params, data: jax.vmap(jax.grad(work.loss), (None, 0, 0))(params, *data.examples)


def bare(work: Workload) -> Prepare:
    """Prepare a step that computes all n local gradients, and nothing else."""

    def step(params: PyTree, data: WorkerData) -> PyTree:
        stacked = lax.optimization_barrier(gradients(work)(params, data))
        # The next step depends on this one by one worker's gradient, at no cost.
        return jax.tree.map(lambda p, g: p - STEP_SIZE * g[0], params, stacked)

    return _loop(step, work.params, work.data)


def obvious_jax(work: Workload, rule_name: str, f: int) -> Prepare | None:
    """Prepare the obvious step in JAX, or return None for a rule that isn't one line."""
    step = obvious_step(work, rule_name, f)
    return None if step is None else _loop(step, (work.params, jax.random.key(3)), work.data)


def obvious_step(work: Workload, rule_name: str, f: int) -> Step | None:
    """Return one obvious step; its state is the parameters and a key."""
    rule = JAX.rules.get(_base(rule_name))
    if rule is None:
        return None

    def step(state: tuple[PyTree, jax.Array], data: WorkerData) -> tuple[PyTree, jax.Array]:
        params, key = state
        stacked = gradients(work)(params, data)
        if is_noisy(rule_name):
            leaves, treedef = jax.tree.flatten(stacked)
            key, *keys = jax.random.split(key, len(leaves) + 1)
            noisy = [g + B * JAX.normal(g, k) for g, k in zip(leaves, keys, strict=True)]
            stacked = jax.tree.unflatten(treedef, noisy)
        params = jax.tree.map(lambda p, g: p - STEP_SIZE * rule(g, f), params, stacked)
        return params, key

    return step


def _loop(step: Step, state: Any, data: WorkerData) -> Prepare:
    def loop(state: Any, data: WorkerData, steps: int) -> Any:
        return lax.fori_loop(0, steps, lambda _, state: step(state, data), state)

    return timing.loop(loop, state, data)


def pytorch(work: Workload, rule_name: str, f: int) -> Prepare | None:
    """Prepare a step in PyTorch: gradients worker by worker, and PyTorch's own functions."""
    rule = TORCH.rules.get(_base(rule_name))
    if torch is None or rule is None:
        return None
    return _worker_by_worker(work, rule_name, lambda stacked: rule(stacked, f))


def byzfl(work: Workload, rule_name: str, f: int) -> Prepare | None:
    """Prepare the step with ByzFL's aggregator of the rule's name, if it has one."""
    aggregators = optional("byzfl.aggregators.aggregators")
    rule = _base(rule_name)
    name = {"mean": "Average", "trimmed_mean": "TrMean"}.get(rule, _camel_case(rule))
    aggregator = getattr(aggregators, name, None)
    if torch is None or aggregator is None:
        return None
    takes_f = "f" in inspect.signature(aggregator).parameters
    aggregate = aggregator(f) if takes_f else aggregator()
    d = sum(leaf.size for leaf in jax.tree.leaves(work.params))
    try:
        aggregate(torch.zeros(len(work.data.sizes), d))
    except (RuntimeError, ValueError) as error:  # older torch.quantile: too many numbers
        print(f"byzfl.{name}: {error}", file=sys.stderr)
        return None
    return _worker_by_worker(work, rule_name, aggregate)


def _worker_by_worker(work: Workload, rule_name: str, aggregate: Callable[[Any], Any]) -> Prepare:
    """Prepare a step in PyTorch, given the function that aggregates an (n, d) tensor."""

    def prepare() -> Run:
        linear, entropy = torch.nn.Linear, torch.nn.functional.cross_entropy
        images, labels = (torch.from_numpy(np.array(x)) for x in work.data.examples)
        images, labels = images.flatten(2), labels.long()
        hidden = linear(images.shape[2], HIDDEN)
        model = torch.nn.Sequential(hidden, torch.nn.ReLU(), linear(HIDDEN, CLASSES))
        parameters = list(model.parameters())

        def run(steps: int) -> None:
            for _ in range(steps):
                rows = []
                for x, y in zip(images, labels, strict=True):
                    gradients = torch.autograd.grad(entropy(model(x), y), parameters)
                    rows.append(torch.cat([g.flatten() for g in gradients]))
                stacked = torch.stack(rows)
                if is_noisy(rule_name):
                    stacked = stacked + B * TORCH.normal(stacked, None)
                update = aggregate(stacked)
                parts = update.split([p.numel() for p in parameters])
                with torch.no_grad():
                    for p, part in zip(parameters, parts, strict=True):
                        p -= STEP_SIZE * part.view_as(p)

        return run

    return prepare


def _base(rule_name: str) -> str:
    return rule_name.partition(":")[0].removeprefix("noisy_")


def _camel_case(name: str) -> str:
    return name.title().replace("_", "")
