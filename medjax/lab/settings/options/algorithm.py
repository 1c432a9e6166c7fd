"""What the workers do to their gradients, and how the server aggregates them."""

from medjax.lab.settings import algorithms, cli, named
from medjax.lab.settings.options.words import ADAPTIVE, AUTO, CONSTANT, THEORY, Add, read_schedule
from medjax.noise import NOISES


def add_algorithm(add: Add) -> None:
    """The rule, its noise, and the step size."""
    add(
        "--rule",
        metavar="NAME",
        default="noisy_sign",
        type=named.one_of("rule", algorithms.RULE_TABLE),
        help="how the server aggregates; noisy_NAME adds b·ξ to every local gradient first: "
        f"{', '.join(algorithms.RULE_NAMES)} (default: noisy_sign)",
    )
    add(
        "--lr",
        metavar="δ",
        type=cli.number_or((THEORY,), 0, exclusive=True),
        help="step size, or theory, that of theorems 5 and 6 (default: 0.003 for votes, 0.1 for "
        "mean, 0.03 for others; theory with --b theory)",
    )
    add(
        "--lr-schedule",
        metavar="SCHEDULE",
        type=_schedule,
        default=CONSTANT,
        help="STEP:DIVISOR,...: divide the step size from each STEP on, as the paper's "
        "1000:2,3000:10,5000:20 for CIFAR-10; or cosine: let it fall to 0 at the last step. Either "
        "may stand after warmup:K, as in warmup:100,cosine: in the first K steps 1/K of it, 2/K, "
        "..., all (default: constant)",
    )
    add(
        "--b",
        metavar="B",
        type=_noise_scale,
        help="standard deviation of the noise, or adaptive[:FRACTION], the paper's per-tensor "
        "scale, of fraction 0.1; auto, for votes, what needs no tuning (that fraction); or theory, "
        "that of theorems 5 and 6 (default: 0.01)",
    )
    add(
        "--noise",
        metavar="NAME",
        type=cli.one_of("noise", NOISES),
        help=f"distribution of the noise: {', '.join(NOISES)} (default: normal)",
    )
    add(
        "--df",
        metavar="DF",
        type=cli.number(2, exclusive=True),
        help="degrees of freedom of --noise student_t (default: 5)",
    )
    add(
        "--zero",
        type=cli.one_of("vote of a zero", ("zero", "plus", "random")),
        metavar="VOTE",
        help="what a worker with an exact 0 votes: zero, plus, random (default: zero)",
    )
    add(
        "--tie",
        type=cli.one_of("tied vote", ("zero", "random")),
        metavar="VOTE",
        help="what a tied vote gives: zero, random (default: zero)",
    )


def _noise_scale(text: str) -> float | str:
    """A number, a word, or adaptive:FRACTION, the paper's 0.1 where none is given."""
    if text == ADAPTIVE.rstrip(":"):
        return f"{ADAPTIVE}0.1"
    if text.startswith(ADAPTIVE):
        cli.number(0)(text.removeprefix(ADAPTIVE))
        return text
    return cli.number_or((THEORY, AUTO), 0)(text)


def _schedule(text: str) -> str:
    """A type for argparse: a schedule, as it is written."""
    read_schedule(text)
    return text
