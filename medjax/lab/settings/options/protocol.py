"""What stands between the workers' gradients and the rule, and between the rule and the model."""

import argparse
from collections.abc import Callable

from medjax.attacks import ATTACKS
from medjax.compressors import COMPRESSORS
from medjax.lab.settings import cli, named
from medjax.lab.settings.options.words import UNDAMPED, Add
from medjax.mixing import MIXINGS
from medjax.servers import SERVERS


def add_protocol(add: Add) -> None:
    """Local steps, cohorts, momenta, compression, attacks, mixing and the server's optimizer."""
    add(
        "--local-steps",
        metavar="K",
        type=cli.integer(1),
        help="each worker takes K steps on its own and sends how far it went, over --local-lr: "
        "with --rule mean, federated averaging (default: a gradient)",
    )
    add(
        "--local-lr",
        metavar="γ",
        type=cli.number(0, exclusive=True),
        help="the length of the workers' own steps (default: 0.1)",
    )
    add(
        "--participation",
        metavar="M",
        type=cli.integer(1),
        help="how many workers take part in a step, drawn anew each time; Byzantine ones always "
        "do (default: all)",
    )
    add(
        "--weights",
        metavar="HOW",
        type=cli.one_of("weights", ("equal", "examples")),
        help="for mean: equal, or examples, as many as a worker has (default: equal)",
    )
    add(
        "--worker-momentum",
        metavar="β",
        type=_worker_momentum,
        help="each worker sends its momentum, m = βm + (1-β)g; undamped:β for m = βm + g "
        "(default: none)",
    )
    add(
        "--compress",
        metavar="NAME",
        type=_or_none(named.one_of("compressor", COMPRESSORS)),
        help=f"what the workers send of their vectors: {', '.join(COMPRESSORS)}; or none, all of "
        "them (default: none)",
    )
    add(
        "--error-feedback",
        metavar="yes|no",
        type=cli.one_of("choice", ("yes", "no")),
        help="whether a worker adds what was not sent to its next vector (default: no)",
    )
    add(
        "--attack",
        metavar="NAME+...",
        type=_or_none(named.chain_of("attack", ATTACKS)),
        help=f"what the Byzantine workers do: {', '.join(ATTACKS)}, several joined by +, or none "
        "(default: none)",
    )
    add(
        "--byzantine",
        metavar="F",
        type=cli.integer(0),
        help="how many workers attack; which ones, the seed says (default: as many as declared)",
    )
    add(
        "--declared-byzantine",
        metavar="F",
        type=cli.integer(0),
        help="how many Byzantine workers the rule and the mixing are to tolerate (default: as many "
        "as attack, or a tenth of the workers)",
    )
    add(
        "--mix",
        metavar="NAME+...",
        type=_or_none(named.chain_of("mixing", MIXINGS)),
        help=f"what the server does to the vectors before the rule: {', '.join(MIXINGS)}, several "
        "joined by +, or none (default: none)",
    )
    add(
        "--server",
        metavar="NAME",
        type=named.one_of("server", SERVERS),
        help=f"the optimizer that takes the aggregate for a gradient: {', '.join(SERVERS)} "
        "(default: sgd)",
    )
    add(
        "--momentum",
        metavar="M",
        type=cli.number(0, below=1),
        help="of --server momentum, which it implies (default: 0.9)",
    )


def _or_none(parse: Callable[[str], str]) -> Callable[[str], str | None]:
    """A type for argparse: what `parse` takes, or none, which a sweep may have among others."""
    return lambda text: None if text == "none" else parse(text)


def _worker_momentum(text: str) -> float | str:
    try:
        beta = cli.number(0, below=1)(text.removeprefix(UNDAMPED))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor {UNDAMPED}β") from None
    return text if text.startswith(UNDAMPED) else beta
