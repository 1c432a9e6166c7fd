"""Settings of what stands between the gradients and the rule, and of the server's optimizer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

import optax

from medjax._engine import checks
from medjax.attacks import ATTACKS, dissensus
from medjax.compressors import COMPRESSORS
from medjax.lab.settings import cli, parts, rules, values
from medjax.lab.settings.field import Given, setting
from medjax.lab.settings.parts import Chain, Part
from medjax.lab.settings.values import Undamped
from medjax.mixing import MIXINGS
from medjax.servers import SERVERS

ATTACK_TABLE: Mapping[str, Callable[..., Any]] = {**ATTACKS, "dissensus": dissensus}
"""The names that `--attack` takes."""

_server = parts.one_of("server", SERVERS)


def _checked(make: Callable[..., optax.GradientTransformation]) -> Callable[..., Any]:
    """Check the numbers that optax takes as they are."""

    @wraps(make)
    def checked(**settings: Any) -> optax.GradientTransformation:
        for name in ("momentum", "b1", "b2"):
            if settings.get(name) is not None:
                checks.fraction(name, settings[name], below_one=True)
        for name in ("eps", "eps_root", "weight_decay"):
            if name in settings:
                checks.real(name, settings[name], minimum=0.0)
        return make(**settings)

    return checked


_LOCAL = {name: _checked(getattr(optax, name)) for name in ("sgd", "adam", "adamw")}
_local_optimizer = parts.one_of("local optimizer", _LOCAL)


def _usual_byzantine(a: Given) -> int:
    """Return the number that attack or are declared, else n/10, at least 1 where 2f < n allows."""
    n, given = a.participation or a.workers, a.given
    numbers = (given.byzantine, given.declared_byzantine, max(n // 10, min(1, (n - 1) // 2)))
    return next(number for number in numbers if number is not None)


def _is_told_of_byzantine(a: Given) -> bool:
    mixings = a.mix.parts if a.mix is not None else ()
    rule = () if a.rule is None else (a.rule,)
    return any("num_byzantine" in part.parameters for part in (*rule, *mixings))


def _compresses(a: Given) -> bool:
    """Tell if the algorithm compresses by itself."""
    return a.algorithm is not None and "compressor" in a.algorithm.parameters


def _walks(a: Given) -> bool:
    """Tell if workers take steps of their own."""
    if a.algorithm is not None:
        return bool({"local_lr", "local_optimizer"} & {*a.algorithm.parameters})
    return a.local_steps is not None


# For what an algorithm has of its own.
_WITHOUT_ALGORITHM: dict[str, Any] = {
    "applies": lambda a: a.algorithm is None,
    "goes_with": "gradients, without --algorithm",
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Local steps, cohorts, momenta, compression, attacks, mixing and the server's optimizer."""

    local_steps: int | None = setting(
        cli.integer(1),
        "each worker takes K steps on its own and sends how far it went, over --local-lr: with "
        "--rule mean, federated averaging",
        "K",
        default_text="a gradient",
        label="{} local steps",
        applies=lambda a: a.algorithm is None,
        goes_with="gradients; an algorithm takes them after its name, scaffold:local_steps=5",
    )
    local_lr: float | None = setting(
        cli.number(0, exclusive=True),
        "the length of the workers' own steps",
        "γ",
        default=0.1,
        applies=_walks,
        goes_with="--local-steps, or an --algorithm with local steps",
        label="local δ = {}",
        traced=True,
    )
    local_optimizer: Part | None = setting(
        parts.or_none(_local_optimizer),
        f"the optimizer of the workers' own steps: {', '.join(_LOCAL)}, or one of optax, as "
        "optax:lion; its step size is --local-lr",
        "NAME",
        default=lambda a: _local_optimizer("adamw") if a.algorithm.name == "diloco" else None,
        default_text="sgd; adamw for diloco",
        applies=lambda a: a.algorithm is not None and "local_optimizer" in a.algorithm.parameters,
        goes_with="--algorithm fedavg, diloco",
        label="local {}",
    )
    participation: int | None = setting(
        cli.integer(1),
        "how many workers take part in a step, drawn anew each time; Byzantine ones always do",
        "M",
        default_text="all",
        label="{} take part",
    )
    delta: float | None = setting(
        cli.number(0, below=1, exclusive=True),
        "the δ of (ε, δ)-differential privacy, of which the summary tells ε",
        "δ",
        default=1e-5,
        applies=lambda a: a.algorithm is not None and a.algorithm.name == "dp_fedavg",
        goes_with="--algorithm dp_fedavg",
        traced=True,
    )
    worker_momentum: float | Undamped | None = setting(
        values.worker_momentum,
        "each worker sends its momentum, m = βm + (1-β)g; undamped:β for m = βm + g",
        "β",
        label="worker momentum {}",
        traced=True,
        **_WITHOUT_ALGORITHM,
    )
    compress: Part | None = setting(
        parts.or_none(parts.one_of("compressor", COMPRESSORS)),
        f"what the workers send of their vectors: {', '.join(COMPRESSORS)}; or none, all of them",
        "NAME",
        label="{}",
    )
    error_feedback: str | None = setting(
        cli.one_of("choice", ("yes", "no")),
        "whether a worker adds what was not sent to its next vector",
        "yes|no",
        default="no",
        applies=lambda a: a.compress is not None and not _compresses(a),
        goes_with="--compress, and without an --algorithm that compresses",
        label="error feedback: {}",
    )
    attack: Chain | None = setting(
        parts.or_none(parts.chain_of("attack", ATTACK_TABLE)),
        f"what the Byzantine workers do: {', '.join(ATTACK_TABLE)}, several joined by +, or none; "
        "dissensus is for --topology",
        "NAME+...",
        label="attack {}",
    )
    byzantine: int | None = setting(
        cli.integer(0),
        "how many workers attack; which ones, the seed says",
        "F",
        default=_usual_byzantine,
        default_text="as many as declared, or a tenth of the workers",
        applies=lambda a: a.attack is not None,
        goes_with="--attack",
        label="{} Byzantine",
    )
    byzantine_data: str | None = setting(
        cli.one_of("choice", ("own", "copied")),
        "what the Byzantine workers' data are: own, a share like any other; or copied, a copy of "
        "an honest worker's, so that the honest ones share out all examples",
        "own|copied",
        default="own",
        applies=lambda a: bool(a.byzantine),
        goes_with="--attack and --byzantine 1 or more",
        label="their data {}",
    )
    mix: Chain | None = setting(
        parts.or_none(parts.chain_of("mixing", MIXINGS)),
        f"what the server does to the vectors before the rule: {', '.join(MIXINGS)}, several "
        "joined by +, or none",
        "NAME+...",
        label="after {}",
    )
    declared_byzantine: int | None = setting(
        cli.integer(0),
        "how many Byzantine workers the rule and the mixing are to tolerate",
        "F",
        default=_usual_byzantine,
        default_text="as many as attack, or a tenth of the workers",
        applies=_is_told_of_byzantine,
        goes_with=f"--rule {rules.names_with('num_byzantine')}, or --mix nnm, arc",
        label="f = {}",
    )
    server: Part | None = setting(
        _server,
        f"the optimizer that takes the aggregate for a gradient: {', '.join(SERVERS)}, or one of "
        "optax, as optax:adamw",
        "NAME",
        default=lambda a: _server("sgd" if a.momentum is None else "momentum"),
        default_text="sgd",
        label="server {}",
        **_WITHOUT_ALGORITHM,
    )
    momentum: float | None = setting(
        cli.number(0, below=1),
        "of --server momentum, which it implies, and nesterov",
        "M",
        default=0.9,
        applies=lambda a: a.server is not None and a.server.name in ("momentum", "nesterov"),
        goes_with="--server momentum, nesterov",
        label="momentum {}",
        traced=True,
    )
