"""Marks in an optimizer's jaxpr: stages and rules that can compute from a few workers at a time.

A mark is one operation of the primitive `medjax`. Its parameter says how to compute it from lazy
updates, and `streaming` finds it there. Everywhere else it is an ordinary operation, which lowers,
batches and differentiates as the computation on stacked arrays that it stands for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
from jax.core import ShapedArray, Tracer
from jax.extend import core as jex
from jax.interpreters import ad, batching, mlir
from jax.sharding import AbstractMesh
from jaxtyping import Array, Float

from medjax._engine.kernels.sums import Row, Worker
from medjax._engine.lazy import LazyUpdates, RowStage, as_lazy, row_like
from medjax._engine.mesh import inside_shards
from medjax._engine.stacked import PyTree, Stacked, Updates


@dataclass(frozen=True, eq=False)
class _Code:
    """A traced function, free of what it closed over: that comes first among its arguments."""

    jaxpr: jex.Jaxpr
    structure: Any

    def __call__(self, captured: Sequence[Any], *args: PyTree) -> PyTree:
        f = jex.jaxpr_as_fun(jex.ClosedJaxpr(self.jaxpr, list(captured)))
        return jax.tree.unflatten(self.structure, f(*jax.tree.leaves(args)))


def _trace(
    f: Callable[..., PyTree], *like: PyTree, mesh: AbstractMesh
) -> tuple[_Code, list[Any], PyTree]:
    """Trace f; return its code, the arrays that it closes over, and the shapes that it returns."""
    with jax.sharding.use_abstract_mesh(mesh):
        closed, shape = jax.make_jaxpr(f, return_shape=True)(*like)
    # The shapes alone: they are used outside of that mesh too.
    shape = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shape)
    return _Code(closed.jaxpr, jax.tree.structure(shape)), list(closed.consts), shape


def _trace_row(f: RowStage, lazy: LazyUpdates) -> tuple[_Code, list[Any], PyTree]:
    """Trace a function of one worker's row, whoever it is, as `LazyUpdates` calls it."""
    pair, second = jax.ShapeDtypeStruct((), "int32"), jax.ShapeDtypeStruct((), "bool")

    def of_row(row: Row, pair: Array, second: Array) -> Row:
        return f(row, Worker(pair, second))

    return _trace(of_row, row_like(lazy.like), pair, second, mesh=inside_shards())


@dataclass(frozen=True, eq=False)
class StageMark:
    """A worker stage, applied to one worker's row at a time.

    Attributes:
        name: the stage's.
        code: (row, worker) to row.
        in_turn: see `LazyUpdates.then_in_turn`.
        in_pairs: see `LazyUpdates`.
    """

    name: str
    code: _Code
    in_turn: bool
    in_pairs: bool

    def run(self, lazy: LazyUpdates, captured: list[Any]) -> LazyUpdates:
        """Append the stage to lazy updates."""
        stage = partial(self.code, captured)
        return _append(lazy, stage, in_turn=self.in_turn, in_pairs=self.in_pairs)


@dataclass(frozen=True, eq=False)
class SumMark:
    """An additive rule, decode(Σ_i encode(x_i)).

    Attributes:
        name: the rule's.
        encode: (row, worker) to row.
        decode: the sums to the aggregate.
        coins: () to what decides tied votes, if it is a vote that a coin decides.
        votes: see `LazyUpdates.sum`.
        sizes: how many arrays encode, decode and coins close over, in this order.
        weighted: whether the last operand holds weights w with which the rule is Σ_i w_i x_i.
    """

    name: str
    encode: _Code
    decode: _Code
    coins: _Code | None
    votes: bool
    sizes: tuple[int, int, int]
    weighted: bool

    def run(self, lazy: LazyUpdates, captured: list[Any]) -> list[Array]:
        """Aggregate lazy updates to the flat list of the aggregate's leaves."""
        if self.weighted and lazy.weighted is not None:
            return jax.tree.leaves(lazy.weighted_sum(captured[-1]))
        of_encode, captured = captured[: self.sizes[0]], captured[self.sizes[0] :]
        of_decode, captured = captured[: self.sizes[1]], captured[self.sizes[1] :]
        coins = None if self.coins is None else partial(self.coins, captured[: self.sizes[2]])
        sums = lazy.sum(partial(self.encode, of_encode), votes=self.votes, coins=coins)
        return jax.tree.leaves(lazy.unflatten(self.decode(of_decode, sums)))


@dataclass(frozen=True, eq=False)
class FirstMark:
    """A stage for which only the first workers' updates matter: an attack by the others.

    Attributes:
        name: the attack's.
        count: how many workers they are.
    """

    name: str
    count: int

    def run(self, lazy: LazyUpdates, captured: list[Any]) -> list[Array]:
        """Compute them, in the first rows of the stacked leaves."""
        del captured
        return jax.tree.leaves(lazy.unflatten(lazy.first_rows(self.count), lazy.num_workers))


Mark: TypeAlias = StageMark | SumMark | FirstMark


def _append(lazy: LazyUpdates, stage: RowStage, *, in_turn: bool, in_pairs: bool) -> LazyUpdates:
    return lazy.then_in_turn(stage) if in_turn else lazy.then(stage, in_pairs=in_pairs)


def apply_stage(
    name: str, stage: RowStage, updates: Stacked, *, in_turn: bool = False, in_pairs: bool = False
) -> Stacked:
    """Apply a worker stage to stacked updates, marked so that it can stream.

    Args:
        name: the stage's, for errors.
        stage: (one worker's flat leaves, the worker) to what it sends, of the same shapes.
        updates: leaves (n, *shape).
        in_turn: whether to run it for one worker at a time; see `LazyUpdates.then_in_turn`.
        in_pairs: whether it draws for both workers of a pair at once.
    """
    lazy = as_lazy(updates)
    leaves, treedef = jax.tree.flatten(lazy.inputs)
    if not _is_traced(leaves):
        return _append(lazy, stage, in_turn=in_turn, in_pairs=in_pairs).stacked()
    code, captured, _ = _trace_row(stage, lazy)
    mark = StageMark(name, code, in_turn, in_pairs)
    return jax.tree.unflatten(treedef, _bind(mark, captured, leaves, code.jaxpr.effects))


def sum_rule(
    name: str,
    updates: Stacked,
    encode: RowStage,
    decode: Callable[[Row], Row],
    *,
    votes: bool = False,
    coins: Callable[[], Row] | None = None,
    weights: Float[Array, " n"] | None = None,
) -> Updates:
    """Return decode(Σ_i encode(x_i)) of stacked updates, marked so that it can stream.

    Args:
        name: the rule's, for errors.
        updates: leaves (n, *shape).
        encode: one worker's flat leaves to its contribution to each leaf's sum, elementwise.
        decode: the sums to the aggregate's flat leaves.
        votes: see `LazyUpdates.sum`.
        coins: see `LazyUpdates.sum`.
        weights: w, if the rule is Σ_i w_i x_i.
    """
    lazy = as_lazy(updates)
    leaves = jax.tree.leaves(lazy.inputs)
    if not _is_traced(leaves):
        return lazy.unflatten(decode(lazy.sum(encode, votes=votes, coins=coins)))
    encoding, of_encode, sums = _trace_row(encode, lazy)
    decoding, of_decode, _ = _trace(decode, sums, mesh=jax.sharding.get_abstract_mesh())
    coin, of_coins, _ = (None, [], None) if coins is None else _trace(coins, mesh=inside_shards())
    sizes = (len(of_encode), len(of_decode), len(of_coins))
    mark = SumMark(name, encoding, decoding, coin, votes, sizes, weights is not None)
    captured = [*of_encode, *of_decode, *of_coins, *([] if weights is None else [weights])]
    effects = encoding.jaxpr.effects | decoding.jaxpr.effects
    leaves = _bind(mark, captured, leaves, effects)
    return jax.tree.unflatten(jax.tree.structure(lazy.like), leaves)


def only_first(name: str, updates: Stacked, count: int) -> Stacked:
    """Return stacked updates of which the first rows alone matter, so that no others need exist.

    Args:
        name: the stage's, for errors.
        updates: leaves (n, *shape).
        count: how many rows matter.
    """
    leaves, treedef = jax.tree.flatten(updates)
    if not _is_traced(leaves):
        return updates
    return jax.tree.unflatten(treedef, _bind(FirstMark(name, count), [], leaves, None))


def _is_traced(leaves: Sequence[Array]) -> bool:
    # Arrays at hand are computed with at once: tracing the stage for a mark would be for nothing.
    return any(isinstance(x, Tracer) for x in leaves)


mark_p = jex.Primitive("medjax")
mark_p.multiple_results = True


def _bind(mark: Mark, captured: list[Any], leaves: list[Array], effects: Any) -> list[Array]:
    # Lowering comes later, where the mesh of the trace is no longer the ambient one.
    params = {"num_captured": len(captured), "mesh": jax.sharding.get_abstract_mesh()}
    if effects:  # a primitive without effects mustn't hide a user's callback
        return run_on_arrays(*captured, *leaves, mark=mark, **params)
    return mark_p.bind(*captured, *leaves, mark=mark, **params)


def run_on_arrays(*operands: Any, mark: Mark, num_captured: int, mesh: Any) -> list[Array]:
    """Compute what a mark stands for, from the stacked arrays."""
    captured, leaves = list(operands[:num_captured]), list(operands[num_captured:])
    if isinstance(mark, FirstMark):
        return leaves  # all of them are there already
    with jax.sharding.use_abstract_mesh(mesh):
        result = mark.run(as_lazy(leaves), captured)
        return result.stacked() if isinstance(result, LazyUpdates) else result


@mark_p.def_abstract_eval
def _shapes(*operands: Any, mark: Mark, num_captured: int, mesh: Any) -> list[Any]:
    del mesh
    leaves = operands[num_captured:]
    if isinstance(mark, SumMark):
        return [ShapedArray(x.shape[1:], x.dtype) for x in leaves]
    return [ShapedArray(x.shape, x.dtype) for x in leaves]


def _batch(operands: Any, axes: Any, **params: Any) -> tuple[list[Array], list[int]]:
    results = jax.vmap(partial(run_on_arrays, **params), in_axes=tuple(axes))(*operands)
    return results, [0] * len(results)


def _differentiate(primals: Any, tangents: Any, **params: Any) -> Any:
    tangents = tuple(map(ad.instantiate_zeros, tangents))
    return jax.jvp(partial(run_on_arrays, **params), primals, tangents)


mark_p.def_impl(run_on_arrays)
mlir.register_lowering(mark_p, mlir.lower_fun(run_on_arrays, multiple_results=True))
batching.primitive_batchers[mark_p] = _batch
ad.primitive_jvps[mark_p] = _differentiate
