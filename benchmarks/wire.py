"""Bits that cross between devices in one aggregation, read from the compiled program.

For each rule the table has the bits that every device sends for each coordinate of the model, by
the collectives of the compiled program, and the closed form:

- a mean sends 32 bits each way;
- a vote of w workers on each device sends the bits of the number of its ayes, and back the sign,
  which takes a second bit where workers can be tied and ties aren't drawn by lot;
- a coordinate-wise rule sends all numbers of its workers, and one back;
- a geometric rule sends those for the Gram matrix, and the mean of the chosen vectors.

Each of k devices keeps the share 1/k. A vote usually takes the first number, where nobody abstains,
and at most the second.
"""

import math
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

import medjax
from benchmarks import report
from benchmarks._launches import launches, least, most, sent
from medjax import rules, sharding
from medjax.lab.machine import devices
from medjax.lab.settings import cli
from medjax.lab.storage import results

WORD = 32
RULES: dict[str, Callable[[int], rules.Rule]] = {
    "mean": lambda n: rules.mean(),
    "majority_vote": lambda n: rules.majority_vote(),
    "majority_vote, random ties": lambda n: rules.majority_vote(tie="random"),
    "median": lambda n: rules.median(),
    "trimmed_mean": lambda n: rules.trimmed_mean(n // 4),
    "krum": lambda n: rules.krum(n // 4),
    "geometric_median": lambda n: rules.geometric_median(),
}
"""Some rules of each family, for n workers."""


class Bits(NamedTuple):
    """Bits that a device sends for each coordinate: the least and the most of all branches."""

    least: float
    most: float


class Exchange(NamedTuple):
    """Bits that a device sends for each coordinate.

    Attributes:
        scattered: bits of an all-to-all, where every other device is sent something else.
        shared: bits of sums over all devices, and of results that all are given.
    """

    scattered: float
    shared: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 if a program sends more than its closed form."""
    parser = cli.Parser("python -m benchmarks.wire", __doc__ or "")
    for flag, default, what in (
        ("--devices", 7, "k, of a CPU"),
        ("--workers", 7, "n, on all of them"),
        ("--dimension", 1_000_000, "d"),
    ):
        parser.add_argument(
            flag, metavar="N", type=cli.integer(1), default=default, help=f"{what} ({default})"
        )
    parser.add_argument("--json", metavar="FILE", type=report.file, help="also write all here")
    arguments = parser.parse_args(argv)
    k, n, d = arguments.devices, arguments.workers, arguments.dimension
    if not 2 <= k <= devices.MOST_OF_A_CPU:
        parser.error(f"nothing crosses between {k} devices; valid: 2 to {devices.MOST_OF_A_CPU}")
    jax.config.update("jax_num_cpu_devices", k)
    measured = {name: per_coordinate(make(n), n, d, k) for name, make in RULES.items()}
    forms = {name: closed_form(RULES[name](n), n, d, k) for name in RULES}
    record = report.provenance()
    print(f"{n} workers on {k} devices, d = {d:,}: bits that a device sends for each coordinate")
    report.print_machine(record)
    rows = [
        [
            name,
            *(f"{x:.4g}" for x in (*bits, forms[name])),
            f"{bits.least / measured['mean'].least:.3g}",
        ]
        for name, bits in measured.items()
    ]
    report.print_table(("rule", "usually", "at most", "closed form", "× the mean's"), rows)
    if arguments.json is not None:
        results.write_json(
            arguments.json, record | {"bits": {k: b._asdict() for k, b in measured.items()}}
        )
    return int(any(bits.least > 1.01 * forms[name] for name, bits in measured.items()))


def per_coordinate(rule: rules.Rule, n: int, d: int, k: int) -> Bits:
    """Return the bits that a device sends for each coordinate, by the compiled program."""
    mesh = sharding.make_mesh(workers=k)
    tx = sharding.sharded(medjax.aggregate(rule, key=0), mesh)
    where = sharding.worker_sharding(mesh) if n % k == 0 else NamedSharding(mesh, PartitionSpec())
    updates = jax.device_put(jnp.zeros((n, d)), where)
    state = tx.init(jnp.zeros(d))
    compiled = jax.jit(lambda x: tx.update(x, state)[0]).lower(updates).compile()
    text = compiled.as_text() or ""
    share = (k - 1) / k
    return Bits(*(8 * share * sent(launches(text, branch)) / d for branch in (least, most)))


def closed_form(rule: rules.Rule, n: int, d: int, k: int) -> float:
    """Return the bits that the rule's family has to exchange."""
    return sum(exchange(rule, n, d, k))


def exchange(rule: rules.Rule, n: int, d: int, k: int) -> Exchange:
    """Return the two parts of the closed form."""
    w = -(-n // k)
    if isinstance(rule, rules.CoordinateWise):
        scattered, shared = w * WORD, WORD
    elif isinstance(rule, rules.Geometric):
        scattered, shared = w * WORD, 2 * WORD * n**2 / d + 2 * WORD
    elif isinstance(rule, rules.Additive) and rule.signs_only:
        everybody = w * k == n
        scattered = math.ceil(math.log2((w if everybody else 2 * w) + 1))
        shared = 1 if rule.coin is not None or (everybody and n % 2) else 2
    else:
        scattered, shared = 0, 2 * WORD
    share = (k - 1) / k
    return Exchange(share * scattered, share * shared)


if __name__ == "__main__":
    sys.exit(main())
