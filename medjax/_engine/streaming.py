"""Streaming: an optimizer's jaxpr, rewritten to need only a chunk of the gradients at a time.

The stages that can stream (`perturb`, `noisy_sign`, `compress`) and additive rules mark themselves
in the jaxpr by one primitive, `medjax`, whose parameter says how to compute them from lazy updates.
`apply_optimizer` traces a user's optimizer once, with plain arrays, and reads the jaxpr. Where only
marked stages stand between the gradients and a marked rule, it evaluates the jaxpr with lazy
gradients; otherwise it evaluates it as it was traced. So user code never sees anything but arrays.

Outside of `simulate` a mark is an ordinary operation: it lowers, batches and differentiates as the
computation that it stands for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
from jax.core import Tracer
from jax.extend import core as jex
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, PyTree

from medjax._engine.kernels.sums import Row, Worker
from medjax._engine.lazy import LazyUpdates, RowStage, as_lazy, row_like
from medjax._engine.stacked import Stacked, Updates

Streaming: TypeAlias = Literal["auto", "require", "off"]
"""Whether gradients are computed a chunk at a time: where possible, always, or never."""


@dataclass(frozen=True, eq=False)
class _Code:
    """A traced function, free of what it closed over: that comes first among its arguments."""

    jaxpr: jex.Jaxpr
    structure: Any

    def __call__(self, captured: Sequence[Array], *args: PyTree) -> PyTree:
        f = jex.jaxpr_as_fun(jex.ClosedJaxpr(self.jaxpr, list(captured)))
        return jax.tree.unflatten(self.structure, f(*jax.tree.leaves(args)))


def _trace(f: Callable[..., PyTree], *like: PyTree) -> tuple[_Code, list[Array]]:
    """Trace f, and list the arrays that it closes over."""
    closed, shape = jax.make_jaxpr(f, return_shape=True)(*like)
    return _Code(closed.jaxpr, jax.tree.structure(shape)), list(closed.consts)


@dataclass(frozen=True, eq=False)
class _StageMark:
    """A worker stage, applied to one worker's row at a time.

    Attributes:
        name: the stage's.
        code: (row, worker) to row.
        in_turn: see `LazyUpdates.then_in_turn`.
    """

    name: str
    code: _Code
    in_turn: bool

    def run(self, lazy: LazyUpdates, captured: list[Array]) -> LazyUpdates:
        stage = partial(self.code, captured)
        return lazy.then_in_turn(stage) if self.in_turn else lazy.then(stage)


@dataclass(frozen=True, eq=False)
class _SumMark:
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

    def run(self, lazy: LazyUpdates, captured: list[Array]) -> list[Array]:
        if self.weighted and lazy.weighted is not None:
            return jax.tree.leaves(lazy.weighted_sum(captured[-1]))
        of_encode, captured = captured[: self.sizes[0]], captured[self.sizes[0] :]
        of_decode, captured = captured[: self.sizes[1]], captured[self.sizes[1] :]
        coins = None if self.coins is None else partial(self.coins, captured[: self.sizes[2]])
        sums = lazy.sum(partial(self.encode, of_encode), votes=self.votes, coins=coins)
        return jax.tree.leaves(lazy.unflatten(self.decode(of_decode, sums)))


_Mark: TypeAlias = _StageMark | _SumMark


def apply_stage(name: str, stage: RowStage, updates: Stacked, *, in_turn: bool = False) -> Stacked:
    """Apply a worker stage to stacked updates, marked so that it can stream.

    Args:
        name: the stage's, for errors.
        stage: (one worker's flat leaves, the worker) to what it sends, of the same shapes.
        updates: leaves (n, *shape).
        in_turn: whether to run it for one worker at a time; see `LazyUpdates.then_in_turn`.
    """
    lazy = as_lazy(updates)
    leaves, treedef = jax.tree.flatten(lazy.inputs)
    if _is_traced(leaves):
        code, captured = _trace(stage, row_like(lazy.like), _SOME_WORKER)
        if not code.jaxpr.effects:  # a callback is to run as often as it was written
            mark = _StageMark(name, code, in_turn)
            return jax.tree.unflatten(treedef, _bind(mark, captured, leaves))
    return (lazy.then_in_turn(stage) if in_turn else lazy.then(stage)).stacked()


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
    if _is_traced(leaves):
        row = row_like(lazy.like)
        encoding, of_encode = _trace(encode, row, _SOME_WORKER)
        sums = jax.eval_shape(encode, row, _SOME_WORKER)
        decoding, of_decode = _trace(decode, sums)
        coin, of_coins = (None, []) if coins is None else _trace(coins)
        if not encoding.jaxpr.effects | decoding.jaxpr.effects:
            sizes = (len(of_encode), len(of_decode), len(of_coins))
            mark = _SumMark(name, encoding, decoding, coin, votes, sizes, weights is not None)
            captured = [*of_encode, *of_decode, *of_coins, *([] if weights is None else [weights])]
            treedef = jax.tree.structure(lazy.like)
            return jax.tree.unflatten(treedef, _bind(mark, captured, leaves))
    return lazy.unflatten(decode(lazy.sum(encode, votes=votes, coins=coins)))


_SOME_WORKER = Worker(
    jax.ShapeDtypeStruct((), "int32"),  # pyright: ignore[reportArgumentType]
    jax.ShapeDtypeStruct((), "bool"),  # pyright: ignore[reportArgumentType]
)


def _is_traced(leaves: Sequence[Array]) -> bool:
    # Arrays at hand are computed with at once: tracing the stage for a mark would be for nothing.
    return any(isinstance(x, Tracer) for x in leaves)


_mark_p = jex.Primitive("medjax")
_mark_p.multiple_results = True


def _bind(mark: _Mark, captured: list[Array], leaves: list[Array]) -> list[Array]:
    # Lowering comes later, where the mesh of the trace is no longer the ambient one.
    mesh = jax.sharding.get_abstract_mesh()
    return _mark_p.bind(*captured, *leaves, mark=mark, num_captured=len(captured), mesh=mesh)


def _run_on_arrays(*operands: Array, mark: _Mark, num_captured: int, mesh: Any) -> list[Array]:
    """Compute what a mark stands for, from the stacked arrays."""
    captured, leaves = list(operands[:num_captured]), list(operands[num_captured:])
    with jax.sharding.use_abstract_mesh(mesh):
        result = mark.run(as_lazy(leaves), captured)
        return result.stacked() if isinstance(result, LazyUpdates) else result


@_mark_p.def_abstract_eval
def _shapes(*operands: Any, mark: _Mark, num_captured: int, mesh: Any) -> list[Any]:
    del mesh
    leaves = operands[num_captured:]
    if isinstance(mark, _StageMark):
        return [jax.core.ShapedArray(x.shape, x.dtype) for x in leaves]
    return [jax.core.ShapedArray(x.shape[1:], x.dtype) for x in leaves]


def _batch(operands: Any, axes: Any, **params: Any) -> tuple[list[Array], list[int]]:
    results = jax.vmap(partial(_run_on_arrays, **params), in_axes=tuple(axes))(*operands)
    return results, [0] * len(results)


def _differentiate(primals: Any, tangents: Any, **params: Any) -> Any:
    tangents = tuple(map(ad.instantiate_zeros, tangents))
    return jax.jvp(partial(_run_on_arrays, **params), primals, tangents)


_mark_p.def_impl(_run_on_arrays)
mlir.register_lowering(_mark_p, mlir.lower_fun(_run_on_arrays, multiple_results=True))
batching.primitive_batchers[_mark_p] = _batch
ad.primitive_jvps[_mark_p] = _differentiate


@dataclass(frozen=True)
class _LazyLeaf:
    """A leaf of lazy updates, in the place of an array."""

    lazy: LazyUpdates


def apply_optimizer(
    update: Callable[[Stacked], PyTree], gradients: LazyUpdates, streaming: Streaming
) -> PyTree:
    """Return update(the stacked gradients), which is called once, with traced arrays.

    Args:
        update: pure but for callbacks; closes over the optimizer's state and parameters.
        gradients: the gradients.
        streaming: whether to compute them a chunk at a time.

    Raises:
        ValueError: if streaming is required but impossible.
    """
    n = gradients.num_workers
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape), x.dtype), gradients.like)
    closed, shape = jax.make_jaxpr(update, return_shape=True)(like)
    obstacle = find_obstacle(closed.jaxpr)
    if streaming == "require" and obstacle is not None:
        raise ValueError(
            f"streaming isn't possible: {obstacle}; before an additive rule (mean, majority_vote) "
            "only perturb, noisy_sign and compress take the workers one by one"
        )
    if streaming == "off" or obstacle is not None:
        inputs = jax.tree.leaves(gradients.stacked())
    else:
        inputs = [_LazyLeaf(gradients) for _ in jax.tree.leaves(gradients.like)]
    return jax.tree.unflatten(jax.tree.structure(shape), _evaluate(closed, inputs))


def find_obstacle(jaxpr: jex.Jaxpr) -> str | None:
    """Describe the operation that needs all workers' updates at once; None if there is none.

    Args:
        jaxpr: an optimizer's, whose arguments are the leaves of the stacked updates.
    """
    try:
        if _follow(jaxpr, jaxpr.invars):
            return "the optimizer returns the stacked updates, no rule aggregates them"
    except _Obstacle as found:
        return str(found)
    return None


class _Obstacle(Exception):
    """An operation that needs all workers' updates at once."""


def _follow(jaxpr: jex.Jaxpr, leaves: Sequence[jex.Var]) -> list[jex.Var]:
    """Follow the updates through marked stages to a marked rule.

    Args:
        jaxpr: the operations.
        leaves: the variables that hold the updates.

    Returns:
        The variables that the jaxpr returns them in, if no rule has taken them.

    Raises:
        _Obstacle: if anything else uses them, or if they are used twice: their gradients would be
            computed twice.
    """
    holding, seen = list(leaves), set(leaves)
    for eqn in jaxpr.eqns:
        used = [v for v in eqn.invars if not isinstance(v, jex.Literal) and v in seen]
        if not used:
            continue
        if used == holding and eqn.primitive is _mark_p:
            is_stage = isinstance(eqn.params["mark"], _StageMark)
            holding = list(eqn.outvars) if is_stage else []
        elif used == holding and _is_inlinable(eqn):
            inner = eqn.params["jaxpr"].jaxpr
            returned = _follow(inner, [inner.invars[eqn.invars.index(v)] for v in used])
            holding = [eqn.outvars[inner.outvars.index(v)] for v in returned]
        else:
            raise _Obstacle(_describe(eqn))
        seen |= set(holding)
    returned = [v for v in jaxpr.outvars if not isinstance(v, jex.Literal) and v in seen]
    if returned and returned != holding:
        raise _Obstacle("the optimizer returns some of the stacked updates")
    return returned


def _describe(eqn: jex.JaxprEqn) -> str:
    """Name the stage that an operation belongs to, or the user's line that it comes from."""
    stage = str(eqn.source_info.name_stack).partition("/")[0]
    if eqn.primitive is _mark_p:
        stage = eqn.params["mark"].name
    if stage:
        return f"{stage} needs all workers' updates at once"
    frames = eqn.source_info.traceback.frames if eqn.source_info.traceback is not None else []
    users = (f for f in frames if not any(part in f.file_name for part in _LIBRARIES))
    line = next((f" at {f.file_name}:{f.line_num}" for f in users), "")
    name = eqn.params.get("name", eqn.primitive.name)
    return f"the operation {name}{line} needs all workers' updates at once"


_LIBRARIES = tuple(f"{sep}{name}{sep}" for sep in "/\\" for name in ("jax", "optax", "medjax"))


def _is_inlinable(eqn: jex.JaxprEqn) -> bool:
    """Whether it calls a jitted function under the same mesh as its caller."""
    if eqn.primitive.name != "jit":
        return False
    inside, ambient = eqn.params["ctx_mesh"], jax.sharding.get_abstract_mesh()
    inside = getattr(inside, "abstract_mesh", inside)
    return inside == ambient or (inside.empty and ambient.empty)


def _has_marks(jaxpr: jex.Jaxpr) -> bool:
    return any(
        eqn.primitive is _mark_p or (_is_inlinable(eqn) and _has_marks(eqn.params["jaxpr"].jaxpr))
        for eqn in jaxpr.eqns
    )


def _evaluate(closed: jex.ClosedJaxpr, inputs: Sequence[Any]) -> list[Any]:
    """Evaluate an optimizer's jaxpr on arrays, or on lazy leaves that only marks take."""
    jaxpr = closed.jaxpr
    values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, jex.Literal) else values[variable]

    for eqn in jaxpr.eqns:
        operands = [read(v) for v in eqn.invars]
        if eqn.primitive is _mark_p:
            outs = _run(operands, **eqn.params)
        elif _is_inlinable(eqn) and (
            any(isinstance(x, _LazyLeaf) for x in operands) or _has_marks(eqn.params["jaxpr"].jaxpr)
        ):
            outs = _evaluate(eqn.params["jaxpr"], operands)
        else:
            variables = [v for v in eqn.invars if not isinstance(v, jex.Literal)]
            variables = list(dict.fromkeys(variables))
            alone = jex.Jaxpr((), variables, eqn.outvars, [eqn], eqn.effects, jaxpr.debug_info)
            outs = jex.jaxpr_as_fun(jex.ClosedJaxpr(alone, ()))(*map(read, variables))
        values |= dict(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _run(operands: list[Any], *, mark: _Mark, num_captured: int, mesh: Any) -> list[Any]:
    """Compute what a mark stands for, from stacked arrays or lazy leaves."""
    captured, leaves = operands[:num_captured], operands[num_captured:]
    if not isinstance(leaves[0], _LazyLeaf):
        return _run_on_arrays(*operands, mark=mark, num_captured=num_captured, mesh=mesh)
    result = mark.run(leaves[0].lazy, captured)
    return [_LazyLeaf(result)] * len(leaves) if isinstance(result, LazyUpdates) else result
