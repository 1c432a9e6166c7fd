"""Streaming: an optimizer evaluated so that only a chunk of the gradients exists at a time.

`apply_optimizer` traces a user's optimizer once, with plain arrays, and reads the jaxpr. Where only
marked stages (`marks`) stand between the gradients and a marked rule, it evaluates the jaxpr with
lazy gradients; otherwise it evaluates it as it was traced. So user code never sees anything but
arrays, and the result is that of the loop by hand. An attack that overwrites the Byzantine workers'
gradients unread needs all others at once, but theirs are never computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import jax
import optax
from jax.extend import core as jex

from medjax._engine.lazy import LazyUpdates
from medjax._engine.marks import Mark, StageMark, SumMark, mark_p, run_on_arrays
from medjax._engine.stacked import PyTree, Stacked

Streaming: TypeAlias = Literal["auto", "require", "off"]
"""An option: compute the gradients a chunk at a time where possible, always, or never."""


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
    structure: Any = None

    def update_leaves(stacked: Stacked) -> list[jax.Array]:
        nonlocal structure
        leaves, structure = jax.tree.flatten(update(stacked))
        return leaves

    closed = jax.make_jaxpr(update_leaves)(like)
    obstacle = find_obstacle(closed.jaxpr, StageMark | SumMark if streaming == "require" else Mark)
    if streaming == "require" and obstacle is not None:
        raise ValueError(
            f"streaming isn't possible: {obstacle}; before an additive rule (mean, majority_vote) "
            "only perturb, noisy_sign and compress take the workers one by one"
        )
    if streaming == "off" or obstacle is not None:
        inputs = jax.tree.leaves(gradients.stacked())
    else:
        inputs = [_LazyLeaf(gradients) for _ in jax.tree.leaves(gradients.like)]
    return jax.tree.unflatten(structure, _evaluate(closed, inputs))


def find_obstacle(jaxpr: jex.Jaxpr, marks: Any) -> str | None:
    """Describe the operation that needs all workers' updates at once; None if there is none.

    Args:
        jaxpr: an optimizer's, whose arguments are the leaves of the stacked updates.
        marks: the marks that can do with less.
    """
    try:
        if _follow(jaxpr, jaxpr.invars, marks):
            return "the optimizer returns the stacked updates, no rule aggregates them"
    except _Obstacle as found:
        return str(found)
    return None


class _Obstacle(Exception):
    """An operation that needs all workers' updates at once."""


def _follow(jaxpr: jex.Jaxpr, leaves: Sequence[jex.Var], marks: Any) -> list[jex.Var]:
    """Follow the updates through marked stages to a marked rule or attack.

    Args:
        jaxpr: the operations.
        leaves: the variables that hold the updates.
        marks: as above.

    Returns:
        The variables that the jaxpr returns them in, if no rule or attack has taken them.

    Raises:
        _Obstacle: if anything else uses them, or if they are used twice: their gradients would be
            computed twice.
    """
    holding, seen = list(leaves), set(leaves)
    for eqn in jaxpr.eqns:
        used = [v for v in eqn.invars if not isinstance(v, jex.Literal) and v in seen]
        if not used:
            continue
        if used == holding and eqn.primitive is mark_p and isinstance(eqn.params["mark"], marks):
            is_stage = isinstance(eqn.params["mark"], StageMark)
            holding = list(eqn.outvars) if is_stage else []
        elif used == holding and _is_inlinable(eqn):
            inner = eqn.params["jaxpr"].jaxpr
            returned = _follow(inner, [inner.invars[eqn.invars.index(v)] for v in used], marks)
            holding = [eqn.outvars[inner.outvars.index(v)] for v in returned]
        else:
            raise _Obstacle(f"{_describe(eqn)} {_objection(eqn, used, holding)}")
        seen |= set(holding)
    returned = [v for v in jaxpr.outvars if not isinstance(v, jex.Literal) and v in seen]
    if returned and returned != holding:
        raise _Obstacle("the optimizer returns some of the stacked updates")
    return returned


def _objection(eqn: jex.JaxprEqn, used: list[jex.Var], holding: list[jex.Var]) -> str:
    if not set(used) <= set(holding):
        return "takes updates that were used before"
    if used != holding and eqn.primitive is mark_p:
        return "takes the updates of some of the parameters alone"
    return "needs all workers' updates at once"


def _describe(eqn: jex.JaxprEqn) -> str:
    """Name the stage that an operation belongs to, or the user's line that it comes from."""
    scopes = str(eqn.source_info.name_stack).split("/")
    stage = next((name for name in scopes if not name.endswith("()")), "")  # vmap() is no stage
    if eqn.primitive is mark_p:
        stage = eqn.params["mark"].name
    if stage:
        return stage
    frames = eqn.source_info.traceback.frames if eqn.source_info.traceback is not None else []
    users = (f for f in frames if not f.file_name.startswith(_LIBRARIES))
    line = next((f" at {f.file_name}:{f.line_num}" for f in users), "")
    name = eqn.params.get("name", eqn.primitive.name)
    return f"the operation {name}{line}"


_FOLDERS = (Path(jax.__file__ or ""), Path(optax.__file__ or ""), Path(__file__).parent)
_LIBRARIES = tuple(str(folder.parent) for folder in _FOLDERS)


def _is_inlinable(eqn: jex.JaxprEqn) -> bool:
    """Tell whether it calls a jitted function under the same mesh as its caller."""
    if eqn.primitive.name != "jit":
        return False
    inside, ambient = eqn.params["ctx_mesh"], jax.sharding.get_abstract_mesh()
    inside = getattr(inside, "abstract_mesh", inside)
    return inside == ambient or (inside.empty and ambient.empty)


def _has_marks(jaxpr: jex.Jaxpr) -> bool:
    return any(
        eqn.primitive is mark_p or (_is_inlinable(eqn) and _has_marks(eqn.params["jaxpr"].jaxpr))
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
        if eqn.primitive is mark_p:
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


def _run(operands: list[Any], *, mark: Mark, num_captured: int, mesh: Any) -> list[Any]:
    """Compute what a mark stands for, from stacked arrays or lazy leaves."""
    captured, leaves = operands[:num_captured], operands[num_captured:]
    if not isinstance(leaves[0], _LazyLeaf):
        return run_on_arrays(*operands, mark=mark, num_captured=num_captured, mesh=mesh)
    result = mark.run(leaves[0].lazy, captured)
    return [_LazyLeaf(result)] * len(leaves) if isinstance(result, LazyUpdates) else result
