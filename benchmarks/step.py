"""Time of a whole training step by each rule, as a multiple of the bare gradients.

Bare gradients are the n local gradients, all of them materialised, and nothing else. Times differ
between machines; the ratios, taken in turns within one run, differ much less.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree
from rich.console import Console
from rich.table import Table

import medjax
from experiments import algorithms, cli, models, results

IMAGE = (28, 28, 1)
CLASSES = 10
RULES = ("mean", "sign", "noisy_sign", "median", "trimmed_mean", "noisy_median")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. A mistake exits with 2."""
    parser = cli.Parser("python -m benchmarks.step", __doc__ or "")
    parser.add_argument(
        "--workers", metavar="N", type=cli.integer(1), default=100, help="(default: 100)"
    )
    parser.add_argument(
        "--batch-size", metavar="B", type=cli.integer(1), default=32, help="(default: 32)"
    )
    parser.add_argument(
        "--steps", metavar="T", type=cli.integer(1), default=20, help="in each loop (default: 20)"
    )
    parser.add_argument(
        "--repeats", metavar="R", type=cli.integer(1), default=5, help="of each loop (default: 5)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures here")
    arguments = parser.parse_args(argv)
    if arguments.json is not None and not arguments.json.parent.is_dir():
        parser.error(f"--json {arguments.json}: no such folder {str(arguments.json.parent)!r}")

    loops = candidates(arguments.workers, arguments.batch_size)
    figures = measure(loops, arguments.steps, arguments.repeats)
    bare = figures["bare gradients"]["ms"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("step", "ms", "× bare", "compile, s"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for name, figure in figures.items():
        figure["ratio"] = figure["ms"] / bare
        table.add_row(
            name, f"{figure['ms']:.1f}", f"{figure['ratio']:.2f}", f"{figure['compile_s']:.1f}"
        )
    record = results.provenance()
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items() if k in ("jax", "numpy"))
    device = record["device"]
    print(
        f"{arguments.workers} workers, batches of {arguments.batch_size}, 784-128-10 network\n"
        f"{device['count']} {device['kind']} device(s), {device['cores']} cores; {versions}\n"
    )
    Console(highlight=False, width=100).print(table)
    if arguments.json is not None:
        settings = {"workers": arguments.workers, "batch_size": arguments.batch_size}
        results.write_json(arguments.json, record | {"settings": settings, "figures": figures})
    return 0


Loop = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function of its arguments and of a number of steps, which it runs in one loop."""


def candidates(n: int, batch_size: int) -> dict[str, Loop]:
    """Bare gradients, and whole steps by each rule."""
    shape = (n, batch_size)
    images = jax.random.uniform(jax.random.key(0), (*shape, *IMAGE))
    labels = jax.random.randint(jax.random.key(1), shape, 0, CLASSES)
    data = medjax.WorkerData((images, labels), jnp.full((n,), batch_size))
    params, apply = models.build("mlp", images[0], CLASSES, jax.random.key(2))
    objective = medjax.objectives.classification(apply)

    def bare(params: PyTree, data: medjax.WorkerData, steps: int) -> PyTree:
        def loss(params: PyTree, images: jax.Array, labels: jax.Array) -> jax.Array:
            return objective(params, (images, labels))[0].mean()

        def step(_: Any, params: PyTree) -> PyTree:
            gradients = jax.vmap(jax.grad(loss), (None, 0, 0))(params, *data.examples)
            gradients = lax.optimization_barrier(gradients)
            # One worker's, so that the next step depends on this one at no cost.
            return jax.tree.map(lambda p, g: p - 1e-6 * g[0], params, gradients)

        return lax.fori_loop(0, steps, step, params)

    def simulated(rule_name: str) -> Loop:
        rule = algorithms.build_rule(rule_name, {"num_byzantine": n // 10}, n)
        b = 1e-3 if algorithms.is_noisy(rule_name) else None
        optimizer = algorithms.build_optimizer(rule, 1e-6, b, None, jax.random.key(3))
        simulation = medjax.simulation(objective, optimizer)
        return simulation.advance, (simulation.init(params, 0), data)

    return {"bare gradients": (bare, (params, data))} | {name: simulated(name) for name in RULES}


def measure(loops: dict[str, Loop], steps: int, repeats: int) -> dict[str, dict[str, float]]:
    """Median milliseconds per step, the loops taken in turns, and seconds to compile."""
    compiled, figures = {}, {}
    for name, (loop, arguments) in loops.items():
        print(f"compiling {name}", file=sys.stderr)
        start = time.perf_counter()
        compiled[name] = jax.jit(loop).lower(*arguments, jnp.int32(steps)).compile()
        figures[name] = {"compile_s": time.perf_counter() - start}
    times: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(repeats + 1):  # the first to warm up
        for name, (_, arguments) in loops.items():
            start = time.perf_counter()
            jax.block_until_ready(compiled[name](*arguments, jnp.int32(steps)))
            if turn:
                times[name].append((time.perf_counter() - start) / steps)
    return {
        name: figure | {"ms": 1e3 * statistics.median(times[name])}
        for name, figure in figures.items()
    }


if __name__ == "__main__":
    sys.exit(main())
