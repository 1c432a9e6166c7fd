"""Metrics of a run: the honest workers' losses, and how their gradients differ.

They are measured in turns, each of some of every worker's examples, or of the held-out ones: the
memory doesn't grow with the data, and a host that takes a few turns at a time is never away for
long.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from medjax._engine.precision import at_least_float32, common_dtype
from medjax._engine.stacked import PyTree, nonfinite_rows
from medjax.objectives import Objective
from medjax.partition import WorkerData
from medjax.rules import mean, median
from medjax.training._chunks import held_out_slices, measuring_chunk, training_slices
from medjax.training._gradients import map_workers, worker_gradient
from medjax.training._honest import Split, average_state, split_workers
from medjax.training._local import Local, evaluate_examples, num_rows
from medjax.training._nodes import consensus_distance, measured_model
from medjax.training._step import SimulationState

Metrics = dict[str, Float[Array, "..."] | Bool[Array, "..."]]

# The median needs all workers' numbers at a coordinate. So many numbers, 256 MiB of float32, exist
# at a time; if there are more, the gradients are computed again for each part of the coordinates.
_MEDIAN_NUMBERS = 1 << 26


class Totals(NamedTuple):
    """The sums of the turns so far.

    Attributes:
        metrics: the h honest workers' averages over their examples, by name.
        gradients: their gradients at one part of the coordinates, w of them; none (w = 0) where a
            turn takes all examples.
        squares: of the parts that are complete, ‖mean‖² and ‖median - mean‖².
        nonfinite: whose gradients have a NaN or ±∞.
        held_out: sums over held-out examples, by the name of the part and of the metric.
    """

    metrics: dict[str, Float[Array, " h"]]
    gradients: Float[Array, "h w"]
    squares: tuple[Float[Array, ""], Float[Array, ""]]
    nonfinite: Bool[Array, " h"]
    held_out: dict[str, dict[str, Float[Array, ""]]]


class Measuring(NamedTuple):
    """The functions of a measurement; see `Simulation`, which has them as its own."""

    begin: Callable[..., Totals]
    advance: Callable[..., tuple[Totals, Metrics, Int[Array, ""]]]
    all_at_once: Callable[..., Metrics]


def measuring(objective: Objective, always: int | None, nodes: int | None = None) -> Measuring:
    """Build the parts of a measurement.

    Args:
        objective: the objective.
        always: how many of the last workers take part in every step; None if all workers do.
        nodes: n where each of n nodes has parameters of its own; their mean is measured.
    """

    def prepared(
        state: SimulationState, data: WorkerData, held_out: Mapping[str, PyTree]
    ) -> "_Turns":
        split = split_workers(state.opt_state, data, always)
        params = measured_model(state.params, split, nodes)
        further = {}
        if nodes is not None:
            further["consensus_distance"] = consensus_distance(state.params, split)
        state = state._replace(params=params)
        return _Turns(objective, state, data, held_out, split, further)

    def begin(state: SimulationState, data: WorkerData, held_out: Mapping[str, PyTree]) -> Totals:
        return prepared(state, data, held_out).zeros()

    def advance(
        totals: Totals,
        state: SimulationState,
        data: WorkerData,
        held_out: Mapping[str, PyTree],
        first: int | Int[Array, ""],
        count: int | Int[Array, ""],
    ) -> tuple[Totals, Metrics, Int[Array, ""]]:
        turns = prepared(state, data, held_out)
        totals = turns.take(totals, first, count)
        left = jnp.int32(turns.count) - jnp.int32(first) - jnp.int32(count)
        return totals, turns.metrics(totals), left

    def all_at_once(
        state: SimulationState, data: WorkerData, held_out: Mapping[str, PyTree]
    ) -> Metrics:
        turns = prepared(state, data, held_out)
        return turns.metrics(turns.take(turns.zeros(), 0, turns.count))

    return Measuring(begin, advance, all_at_once)


class _Turns:
    """The turns of one measurement."""

    def __init__(
        self,
        objective: Objective,
        state: SimulationState,
        data: WorkerData,
        held_out: Mapping[str, PyTree],
        split: Split,
        further: Metrics,
    ) -> None:
        self._objective, self._params, self._data = objective, state.params, data
        self._held_out, self._split, self._further = held_out, split, further
        every = Local(data.examples, data.sizes, None, state.model_state)
        self._local = jax.tree.map(lambda x: x[split.honest], every)
        self._model_state = average_state(state.model_state, split)
        self._size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        self._parts = max(1, -(-len(self._local.sizes) * self._size // _MEDIAN_NUMBERS))
        self._width = -(-self._size // self._parts)
        self._slices = training_slices(objective, state.params, self._local)
        self._chunk = measuring_chunk(objective, state.params, self._local, self._slices)
        self._held_out_slices = {
            name: held_out_slices(objective, state.params, batch, self._model_state)
            for name, batch in held_out.items()
        }
        lengths = [self._parts * self._slices.number]
        lengths += [slices.number for slices in self._held_out_slices.values()]
        self._ends = [sum(lengths[: k + 1]) for k in range(len(lengths))]
        # Little is measured in one go.
        self._at_once = max(lengths) == 1
        self.count = 1 if self._at_once else sum(lengths)

    def zeros(self) -> Totals:
        """Return the totals before the first turn."""
        first = jnp.int32(0)
        metrics, gradients = jax.eval_shape(self._of_workers, first, first)
        held_out = {
            name: jax.eval_shape(functools.partial(self._of_held_out, name), first)
            for name in self._held_out
        }
        if self._slices.number == 1:
            gradients = gradients.update(shape=(len(gradients), 0))
        zero = jnp.zeros([], gradients.dtype)
        metrics, gradients, held_out = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), (metrics, gradients, held_out)
        )
        nobody = jnp.zeros(len(gradients), bool)
        return Totals(metrics, gradients, (zero, zero), nobody, held_out)

    def take(
        self, totals: Totals, first: int | Int[Array, ""], count: int | Int[Array, ""]
    ) -> Totals:
        """Take some turns."""
        kinds = [self._train]
        kinds += [functools.partial(self._test, name) for name in self._held_out]
        if self._at_once:

            def every(totals: Totals) -> Totals:
                for kind in kinds:
                    totals = kind(totals, jnp.int32(0))
                return totals

            return jax.jit(every)(totals)  # a map over devices can't close over what is batched
        starts = [0, *self._ends[:-1]]

        def one(turn: Array, totals: Totals) -> Totals:
            kind = sum((turn >= end).astype(jnp.int32) for end in self._ends[:-1])
            cases = [
                lambda totals, turn, f=f, start=start: f(totals, turn - start)
                for f, start in zip(kinds, starts, strict=True)
            ]
            return lax.switch(kind, cases, totals, turn)

        return lax.fori_loop(jnp.int32(first), jnp.int32(first) + jnp.int32(count), one, totals)

    def metrics(self, totals: Totals) -> Metrics:
        """Return the metrics by their names."""
        everyone = (
            jnp.zeros(self._data.num_workers, bool).at[self._split.honest].set(totals.nonfinite)
        )
        for state, byzantine in self._split.attacks:
            everyone = everyone.at[byzantine].max(state.nonfinite)
        found: Metrics = {f"train_{name}": x.mean() for name, x in totals.metrics.items()}
        found |= {
            "grad_norm": jnp.sqrt(totals.squares[0]),
            "median_mean_gap": jnp.sqrt(totals.squares[1]),
            "nonfinite_workers": everyone,
        }
        for part, sums in totals.held_out.items():
            rows = num_rows(self._held_out[part], axis=0)
            found |= {f"{part}_{name}": x / rows for name, x in sums.items()}
        return found | self._further

    def _train(self, totals: Totals, turn: Int[Array, ""]) -> Totals:
        """Take some of every worker's examples, at one part of the coordinates."""
        part, k = turn // self._slices.number, turn % self._slices.number
        metrics, gradients = self._of_workers(part, k)
        if self._parts > 1:  # they are the same in every part
            metrics = {name: jnp.where(part == 0, x, 0) for name, x in metrics.items()}
        totals = totals._replace(metrics=_added(totals.metrics, metrics))
        if self._slices.number == 1:
            return _compared(totals, gradients)
        gradients = jnp.where(k == 0, gradients, totals.gradients + gradients)
        totals = totals._replace(gradients=gradients)
        complete = k == self._slices.number - 1
        return lax.cond(complete, _compared, lambda totals, _: totals, totals, gradients)

    def _test(self, name: str, totals: Totals, turn: Int[Array, ""]) -> Totals:
        """Take some of the held-out examples."""
        sums = _added(totals.held_out[name], self._of_held_out(name, turn))
        return totals._replace(held_out=totals.held_out | {name: sums})

    def _of_workers(
        self, part: Int[Array, ""], k: Int[Array, ""]
    ) -> tuple[dict[str, Float[Array, " h"]], Float[Array, "h w"]]:
        """Compute the workers' shares of their averages and gradients, from a slice each."""

        def columns(worker: Local) -> tuple[dict[str, Array], Array]:
            counts, rows = self._slices.of(k)
            examples = jax.tree.map(lambda x: self._slices.cut(x, k), worker.examples)
            some = worker._replace(examples=examples)
            counts &= rows.astype(worker.sizes.dtype) < worker.sizes
            found = worker_gradient(self._objective, self._params, some, counts)
            leaves = jax.tree.leaves(found.updates)
            dtype = at_least_float32(common_dtype(*leaves))
            flat = jnp.concatenate([x.reshape(-1).astype(dtype) for x in leaves])
            # Columns of zeros beyond the last add nothing to a norm.
            flat = jnp.pad(flat, (0, self._parts * self._width - self._size))
            return found.metrics, lax.dynamic_slice_in_dim(flat, part * self._width, self._width)

        return map_workers(columns, self._local, self._chunk)

    def _of_held_out(self, name: str, k: Int[Array, ""]) -> dict[str, Float[Array, ""]]:
        """Add up the metrics of a slice of held-out examples."""
        slices = self._held_out_slices[name]
        batch = jax.tree.map(lambda x: slices.cut(x, k), self._held_out[name])
        values, _ = evaluate_examples(self._objective, self._params, batch, None, self._model_state)
        counts, _ = slices.of(k)
        return {name: jnp.sum(jnp.where(counts, x, 0)) for name, x in values.items()}


def _compared(totals: Totals, gradients: Float[Array, "h w"]) -> Totals:
    """Compare the workers' gradients at a part of the coordinates."""
    true_mean = mean()(gradients)
    gap = median()(gradients) - true_mean
    norm, distance = totals.squares
    return totals._replace(
        squares=(norm + jnp.sum(true_mean**2), distance + jnp.sum(gap**2)),
        nonfinite=totals.nonfinite | nonfinite_rows(gradients),
    )


def _added(a: Mapping[str, Array], b: Mapping[str, Array]) -> dict[str, Array]:
    return {name: a[name] + b[name] for name in b}
