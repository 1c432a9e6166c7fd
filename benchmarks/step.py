"""Time of a whole training step by several rules, as a multiple of the bare gradients.

Bare gradients are the n local gradients, all of them materialised, and nothing else. Beside it, for
each rule: the obvious JAX code in the same jitted loop; a loop over workers in PyTorch; and the
same loop with ByzFL's aggregators, where these packages are installed. Times differ between
machines; the ratios, taken in turns within one run, differ much less. Nothing else should run
meanwhile: it would slow down the threads of PyTorch by more than its share.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import jax
import optax

from benchmarks import report, steps, workload
from benchmarks.timing import Figure, Prepare, Run, measure
from benchmarks.workload import Workload
from medjax.lab.settings import cli, rules
from medjax.lab.storage import results

RULES = (
    *("mean", "median", "sign", "trimmed_mean"),
    *("noisy_mean", "noisy_median", "noisy_sign", "noisy_trimmed_mean"),
    *("meamed", "krum", "geometric_median", "centered_clipping:tau=1"),
)
"""Default rules, some of each family."""

GRAM = (
    *("krum", "multi_krum", "geometric_median", "centered_clipping:tau=1", "monna", "caf", "cge"),
    *("bulyan", "dnc", "signguard", "clipped_clustering"),
    *("nnm+mean", "nnm+trimmed_mean", "nnm+krum", "arc+krum", "arc+nnm+krum", "bucketing+krum"),
)
"""Rules that use the Gram matrix of the vectors, alone and after mixings, for any n."""

BARE = "bare gradients"
EXACT = "noisy_sign, exact noise"
OTHERS = {
    "obvious JAX": steps.obvious_jax,
    "PyTorch": steps.pytorch,
    "ByzFL": steps.byzfl,
}
_PACKAGES = {"PyTorch": "torch", "ByzFL": "byzfl"}
BATCH_SIZE = 32
_SECONDS = 1.0  # about the length of a turn

Key = tuple[str, str]
"""A row of the table, and the author of the step: "medjax" or one of the others."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = cli.Parser("python -m benchmarks.step", __doc__ or "")
    add_options(parser)
    parser.add_argument(
        "--batch-size", metavar="B", type=cli.integer(1), default=BATCH_SIZE, help="(default: 32)"
    )
    parser.add_argument(
        "--steps",
        metavar="T",
        type=cli.integer(1),
        default=20,
        help="in each turn, fewer where they take more than a second (default: 20)",
    )
    report.add_common_options(parser)
    arguments = parser.parse_args(argv)
    n, others = arguments.workers, {} if arguments.only_medjax else _others()
    try:
        chosen = optimizers(arguments.rules, n)
    except ValueError as error:
        parser.error(f"{error}: choose others with --rules")
    packages = {name: package for name, package in _PACKAGES.items() if name in others}
    installed = [p for p in packages.values() if report.optional(p)]

    work = workload.build(n, arguments.batch_size)
    figures = measure(
        {
            key: partial(_announced, key, prepare)
            for key, prepare in candidates(work, chosen, others).items()
        },
        repeats=arguments.repeats,
        seconds=_SECONDS,
        most=arguments.steps,
    )
    record = report.provenance(installed)
    print(f"{n} workers, batches of {arguments.batch_size}, 784-128-10 network")
    report.print_machine(record, installed)
    rows = compare(figures)
    report.print_table(("step", "ms", "× bare", "compile, s", *others), _cells(rows, others))
    if others:
        print("The last columns: how many times slower than medjax by the same rule.")
    for name, package in packages.items():
        if package not in installed:
            print(f"{name} is left out: it needs the package {package}.")
    if others and not packages:
        print(f"{' and '.join(_PACKAGES)} are left out: their steps would run on the CPU.")
    if arguments.json is not None:
        settings = {k: v for k, v in vars(arguments).items() if k != "json"}
        results.write_json(arguments.json, record | {"settings": settings, "figures": rows})
    return 0


def candidates(
    work: Workload,
    optimizers: Mapping[str, optax.GradientTransformation],
    others: Mapping[str, Any],
) -> dict[Key, Prepare]:
    """Return bare gradients, the steps of medjax, and those of the others."""
    n = len(work.data.sizes)
    found = {(BARE, "medjax"): steps.bare(work)}
    for row, optimizer in optimizers.items():
        found[row, "medjax"] = workload.simulated(work, optimizer)
        for other, step in others.items() if row != EXACT else ():
            if prepare := step(work, row, workload.num_byzantine(n)):
                found[row, other] = prepare
    return found


def optimizers(rules: Iterable[str], num_workers: int) -> dict[str, optax.GradientTransformation]:
    """Return the optimizers of medjax by their rows in the table.

    Raises:
        ValueError: if a rule can't have so many workers.
    """
    found: dict[str, optax.GradientTransformation] = {}
    for rule in rules:
        found[rule] = workload.optimizer(rule, num_workers)
        if rule == "noisy_sign":
            found[EXACT] = workload.exact_noisy_sign()
    return found


def compare(figures: Mapping[Key, Figure]) -> dict[str, dict[str, dict[str, float]]]:
    """Return figures by row and column with ratios: medjax to bare gradients, others to medjax."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for (row, column), figure in figures.items():
        ours = column == "medjax"
        yardstick = figures[(BARE if ours else row), "medjax"].ms
        ratio = "times_bare" if ours else "times_medjax"
        rows.setdefault(row, {})[column] = asdict(figure) | {ratio: figure.ms / yardstick}
    return rows


def add_options(parser: cli.Parser) -> None:
    """Add the options that choose the steps."""
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--rules",
        metavar="RULE",
        nargs="+",
        type=workload.rule_name,
        default=RULES,
        help=f"of {', '.join(rules.RULE_TABLE)}, also as noisy_NAME, after mixings as in nnm+krum "
        f"(default: {' '.join(RULES)})",
    )
    chosen.add_argument(
        "--gram",
        dest="rules",
        action="store_const",
        const=GRAM,
        help=f"those from the Gram matrix: {' '.join(GRAM)}",
    )
    parser.add_argument(
        "--only-medjax", action="store_true", help="leave out the others, most of the time taken"
    )
    parser.add_argument(
        "--workers", metavar="N", type=cli.integer(1), default=100, help="(default: 100)"
    )


def _others() -> dict[str, Any]:
    """Return the others that run on the platform of JAX."""
    on_cpu = jax.default_backend() == "cpu"
    return {name: step for name, step in OTHERS.items() if on_cpu or name not in _PACKAGES}


def _announced(key: Key, prepare: Prepare) -> Run:
    print(f"preparing {key[0]}: {key[1]}", file=sys.stderr)
    return prepare()


def _cells(rows: Mapping[str, Any], others: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            name,
            report.digits(columns["medjax"]["ms"]),
            f"{columns['medjax']['times_bare']:.2f}",
            f"{columns['medjax']['compile_s']:.1f}",
            *(report.ratio(columns.get(other, {}).get("times_medjax")) for other in others),
        ]
        for name, columns in rows.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
