"""Settings of the algorithm: the rule, its noise, and the step size."""

from dataclasses import dataclass
from inspect import signature

from medjax.algorithms import ALGORITHMS
from medjax.lab.settings import cli, parts, rules, values
from medjax.lab.settings.field import Given, setting
from medjax.lab.settings.parts import Part, parameters
from medjax.lab.settings.values import THEORY, Adaptive, Schedule
from medjax.noise import NOISES
from medjax.topologies import TOPOLOGIES

_A_NOISY_RULE = "a noisy rule, such as noisy_sign"


def _is_noisy(a: Given) -> bool:
    return a.rule is not None and a.rule.noisy


def _takes(option: str) -> dict[str, object]:
    """The condition of a setting that is an argument of the rule's factory."""
    return {
        "applies": lambda a: a.rule is not None and option in a.rule.parameters,
        "goes_with": f"--rule {rules.names_with(option)}",
    }


def _of_algorithms(option: str) -> str:
    """Name the algorithms that take a setting, for people."""
    return "--algorithm " + ", ".join(k for k, f in ALGORITHMS.items() if option in parameters(f))


def _algorithm_takes(a: Given, *options: str) -> bool:
    return a.algorithm is not None and any(x in a.algorithm.parameters for x in options)


def _aggregates(a: Given) -> bool:
    """Tell if the server has a rule: algorithms that vote or add noise have their own."""
    return a.algorithm is None or _algorithm_takes(a, "rule")


def _step_size(a: Given) -> float | str:
    if a.algorithm is None:
        return THEORY if a.given.b == THEORY else rules.default_step_size(a.rule)
    if rules.is_vote(a.rule):
        return rules.default_step_size(a.rule)
    if _algorithm_takes(a, "server_lr"):
        usual = signature(a.algorithm.factory).parameters["server_lr"].default
        return float(usual) if isinstance(usual, int | float) else 1.0
    # Of the library's, what has neither a rule nor a graph votes; one's own may do anything.
    votes = a.algorithm.digest is None and not _algorithm_takes(a, "rule", "topology")
    return 0.003 if votes else 0.1


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """The rule, its noise, and the step size."""

    algorithm: Part | None = setting(
        parts.or_none(parts.one_of("algorithm", ALGORITHMS)),
        "more than a gradient of each worker, with settings after it, as scaffold:local_steps=5: "
        f"{', '.join(ALGORITHMS)}; or none",
        "NAME",
        label="{}",
    )
    rule: Part | None = setting(
        rules.parse,
        "how the server aggregates; noisy_NAME adds b·ξ to every local gradient first: "
        f"{rules.by_family()}",
        "NAME",
        default=lambda a: rules.parse("noisy_sign" if a.algorithm is None else "mean"),
        default_text="noisy_sign; mean with --algorithm",
        applies=_aggregates,
        goes_with=f"gradients, and with {_of_algorithms('rule')}",
        label="{}",
    )
    topology: Part | None = setting(
        parts.one_of("topology", TOPOLOGIES),
        f"who talks to whom where there is no server: {', '.join(TOPOLOGIES)}, such as "
        "torus:rows=2,columns=5; or a function of one's own that gives a networkx graph",
        "NAME",
        default=parts.one_of("topology", TOPOLOGIES)("ring"),
        applies=lambda a: _algorithm_takes(a, "topology"),
        goes_with=_of_algorithms("topology"),
        label="{}",
    )
    lr: float | str = setting(
        cli.number_or((THEORY,), 0, exclusive=True),
        "step size, or theory, that of theorems 5 and 6; with --algorithm the server's",
        "δ",
        default=_step_size,
        default_text="0.003 for votes, 0.1 for mean, 0.03 for others; theory with --b theory; of "
        "algorithms with local steps 1, of diloco 0.7",
        label="δ = {}",
        traced=True,
    )
    lr_schedule: Schedule = setting(
        values.schedule,
        "STEP:DIVISOR,...: divide the step size from each STEP on, as the paper's "
        "1000:2,3000:10,5000:20 for CIFAR-10; or cosine: let it fall to 0 at the last step. Either "
        "may stand after warmup:K, as in warmup:100,cosine: in the first K steps 1/K of it, 2/K, "
        "..., all",
        "SCHEDULE",
        default=Schedule(),
        label="schedule {}",
    )
    b: float | Adaptive | str | None = setting(
        values.noise_scale,
        "standard deviation of the noise, or adaptive[:FRACTION], the paper's per-tensor scale, of "
        "fraction 0.1; auto, for votes, what needs no tuning (that fraction); or theory, that of "
        "theorems 5 and 6",
        "B",
        default=0.01,
        applies=_is_noisy,
        goes_with=_A_NOISY_RULE,
        label="b = {}",
        traced=True,
    )
    noise: Part | None = setting(
        parts.one_of("noise", NOISES),
        f"distribution of the noise: {', '.join(NOISES)}",
        "NAME",
        default=parts.one_of("noise", NOISES)("normal"),
        applies=_is_noisy,
        goes_with=_A_NOISY_RULE,
        label="{} noise",
    )
    df: float | None = setting(
        cli.number(2, exclusive=True),
        "degrees of freedom of --noise student_t",
        "DF",
        default=5.0,
        applies=lambda a: a.noise is not None and a.noise.name == "student_t",
        goes_with="--noise student_t",
        label="{} degrees of freedom",
    )
    zero: str | None = setting(
        cli.one_of("vote of a zero", ("zero", "plus", "random")),
        "what a worker with an exact 0 votes: zero, plus, random",
        "VOTE",
        default="zero",
        label="a zero votes {}",
        **_takes("zero"),
    )
    tie: str | None = setting(
        cli.one_of("tied vote", ("zero", "random")),
        "what a tied vote gives: zero, random",
        "VOTE",
        default="zero",
        label="a tie gives {}",
        **_takes("tie"),
    )
    weights: str | None = setting(
        cli.one_of("weights", ("equal", "examples")),
        "for mean: equal, or examples, as many as a worker has",
        "HOW",
        default="equal",
        label="{} weights",
        **_takes("weights"),
    )
