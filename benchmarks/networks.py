"""Gradients of all workers, of each network: by medjax, and by vmap(grad) over all of them at once.

A step computes every worker's gradient of its batch, and moves by the first one.
"""

import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

import medjax
from benchmarks import report, timing, workload
from benchmarks.steps import bare
from medjax.lab.models.catalogue import MODELS
from medjax.lab.settings import cli
from medjax.lab.storage import results
from medjax.objectives import classification, language_modelling

_SHAPES = {"resnet20": (32, 32, 3), "transformer": (32,)}
_CHARACTERS = 40
_SECONDS = 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = cli.Parser("python -m benchmarks.networks", __doc__ or "")
    parser.add_argument(
        "--networks",
        metavar="NAME",
        nargs="+",
        type=cli.one_of("network", MODELS),
        default=list(MODELS),
        help=f"(default: {' '.join(MODELS)})",
    )
    parser.add_argument("--workers", metavar="N", type=cli.integer(1), default=10)
    parser.add_argument("--batch-size", metavar="B", type=cli.integer(1), default=16)
    report.add_common_options(parser)
    arguments = parser.parse_args(argv)
    rows, figures = [], {}
    for name in arguments.networks:
        work = build(name, arguments.workers, arguments.batch_size)
        found = timing.measure(
            {"vmap(grad)": bare(work), "medjax": whole_steps(work)},
            repeats=arguments.repeats,
            seconds=_SECONDS,
            most=100,
        )
        ours, theirs = found["medjax"].ms, found["vmap(grad)"].ms
        figures[name] = {"medjax": ours, "vmap(grad)": theirs, "ratio": ours / theirs}
        rows.append(
            report.cells(("{}", "{:.3g}", "{:.3g}", "{:.2f}"), (name, theirs, ours, ours / theirs))
        )
    record = report.provenance()
    print(f"{arguments.workers} workers, batches of {arguments.batch_size}")
    report.print_machine(record)
    report.print_table(("", "vmap(grad), ms", "medjax, ms", "ratio"), rows)
    if arguments.json is not None:
        settings = {k: v for k, v in vars(arguments).items() if k != "json"}
        results.write_json(arguments.json, record | {"settings": settings, "figures": figures})
    return 0


def build(name: str, n: int, batch_size: int) -> workload.Workload:
    """Make n workers with a batch each, and a network of the catalogue."""
    shape, text = (n, batch_size, *_SHAPES.get(name, workload.IMAGE)), name == "transformer"
    classes = _CHARACTERS if text else workload.CLASSES
    model, keys = MODELS[name](num_classes=classes), jax.random.split(jax.random.key(0), 2)
    if text:
        x = y = jax.random.randint(keys[0], shape, 0, classes)
    else:
        x = jax.random.uniform(keys[0], shape)
        y = jax.random.randint(keys[1], (n, batch_size), 0, classes)
    objective = (language_modelling if text else classification)(model.apply)
    return workload.Workload(
        medjax.WorkerData((x, y), jnp.full((n,), batch_size)),
        jax.jit(model.init)(jax.random.key(2), x[0, :1]),
        objective,  # pyright: ignore[reportArgumentType]
    )


def whole_steps(work: workload.Workload) -> timing.Prepare:
    """Prepare steps by medjax, with a rule of one's own, for which all gradients are computed."""

    def first(vectors: jax.Array) -> jax.Array:
        return vectors[0]

    optimizer = optax.chain(medjax.aggregate(first), optax.sgd(workload.STEP_SIZE))
    return workload.simulated(work, optimizer)


if __name__ == "__main__":
    sys.exit(main())
