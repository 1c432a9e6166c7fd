"""Estimate the cost of a training step on an absent GPU or TPU from its compiled program.

The device's own compiler runs here. For the bare gradients (the n local gradients, and nothing
else), for a step by each rule, and for the obvious JAX code of it: the seconds that compiling
takes; how many kernels a step launches, and the bytes that they read and write; the memory that it
takes besides its arguments; how many collectives there are, and the bytes that each device sends in
them; and the time by a model: of each kernel the longer of its bytes and its arithmetic, at rates
that an H100 reached, and its launch. (A TPU's compiler says itself how many cycles it expects.)

Seven whole steps on one H100 took from 0.85 to 1.2 times as long as the model has it. It is there
to rank designs; only a device gives times. Of what a sort or a kernel written by hand does inside
it knows nothing: these take longer. A loop whose length depends on the data counts as one turn, and
of a conditional the cheaper branch counts.
"""

import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

import medjax
from benchmarks import _launches, _ptxas, _targets, report, step, steps, workload
from benchmarks._launches import Kernel
from benchmarks._targets import Compiled
from benchmarks.workload import Workload
from medjax import sharding
from medjax.lab.settings import cli
from medjax.lab.storage import results

OBVIOUS = "{}, obvious JAX"
_LISTED = 25  # kernels of a step
_WIDTH = 120
_COLUMNS: dict[str, Callable[[Mapping[str, float]], str]] = {
    "compile, s": lambda figure: f"{figure['compile_s']:.1f}",
    "kernels": lambda figure: f"{figure['kernels']:,}",
    "moved, MB": lambda figure: f"{figure['moved_mb']:,.1f}",
    "temp., MB": lambda figure: f"{figure['temporary_mb']:,.1f}",
    "collectives": lambda figure: f"{figure['collectives']:,}",
    "sent, MB": lambda figure: f"{figure['sent_mb']:.3g}",
    "ms": lambda figure: report.digits(figure["ms"]),
    "× bare": lambda figure: f"{figure['times_bare']:.2f}",
}
_EXCHANGES = ("collectives", "sent, MB")


class Work(NamedTuple):
    """A function to compile, and the shapes of its arguments on the devices."""

    function: Callable[..., Any]
    shapes: tuple[PyTree, ...]


@dataclass(frozen=True)
class Cost:
    """Cost of one step, by its compiled program.

    Attributes:
        trace_s: seconds to trace and lower it.
        compile_s: seconds to compile it.
        kernels: kernels that it launches.
        moved_mb: MB that these read and write.
        temporary_mb: MB of memory besides its arguments and results.
        collectives: kernels in which devices exchange something.
        sent_mb: MB that each device sends in them.
        ms: milliseconds, by the model.
    """

    trace_s: float
    compile_s: float
    kernels: int
    moved_mb: float
    temporary_mb: float
    collectives: int
    sent_mb: float
    ms: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    n, count = arguments.workers, arguments.devices
    _targets.without_devices()
    try:
        meshes = {target: _mesh(target, count) for target in dict.fromkeys(arguments.target)}
        optimizers = step.optimizers(arguments.rules, n)
    except (ImportError, ValueError) as error:
        parser.error(str(error))
    work = workload.build(n, step.BATCH_SIZE)
    record = report.provenance()
    print(f"{n} workers, batches of {step.BATCH_SIZE}, 784-128-10 network; compiled on")
    report.print_machine(record)
    figures = {
        target: _show(target, programs(work, optimizers, mesh, arguments.only_medjax), arguments)
        for target, mesh in meshes.items()
    }
    if arguments.json is not None:
        settings = {k: v for k, v in vars(arguments).items() if k != "json"}
        results.write_json(arguments.json, record | {"settings": settings, "figures": figures})
    return 0


def _parser() -> cli.Parser:
    parser = cli.Parser("python -m benchmarks.accelerators", __doc__ or "")
    parser.add_argument(
        "--target",
        metavar="NAME",
        nargs="+",
        type=_target,
        default=["h100"],
        help=f"of {_targets.valid()} (default: h100)",
    )
    parser.add_argument(
        "--devices",
        metavar="N",
        type=cli.integer(1),
        default=1,
        help="of each target, over which the workers are spread (default: 1)",
    )
    step.add_options(parser)
    parser.add_argument(
        "--kernels", action="store_true", help=f"also list each step's {_LISTED} longest kernels"
    )
    parser.add_argument("--json", metavar="FILE", type=report.file, help="also write all here")
    return parser


def _target(text: str) -> str:
    if not _targets.known(text):
        raise ArgumentTypeError(f"unknown target {text!r}: valid: {_targets.valid()}")
    return text


def _mesh(target: str, count: int) -> Mesh:
    return sharding.make_mesh(workers=count, devices=_targets.devices(target, count))


def programs(
    work: Workload,
    optimizers: Mapping[str, optax.GradientTransformation],
    mesh: Mesh,
    only_medjax: bool,
) -> dict[str, Work]:
    """Return one step of each kind by its row in the table."""
    data, params = _spread(work.data, mesh), _everywhere(work.params, mesh)
    found = {step.BARE: Work(steps.gradients(work), (params, data))}
    for row, optimizer in optimizers.items():
        found[row] = _simulated(work, optimizer, mesh)
        if only_medjax or row == step.EXACT:
            continue
        obvious = steps.obvious_step(work, row, workload.num_byzantine(work.data.num_workers))
        if obvious is not None:
            key = _everywhere(jax.random.key(3), mesh)
            found[OBVIOUS.format(row)] = Work(obvious, ((params, key), data))
    return found


def _simulated(work: Workload, optimizer: optax.GradientTransformation, mesh: Mesh) -> Work:
    simulation = medjax.simulation(work.objective, optimizer, mesh=mesh if mesh.size > 1 else None)
    state = _everywhere(jax.eval_shape(simulation.init, work.params, 0), mesh)
    shapes = (state, _spread(work.data, mesh))
    return Work(lambda state, data: simulation.advance(state, data, 1), shapes)


def _spread(data: medjax.WorkerData, mesh: Mesh) -> medjax.WorkerData:
    """Return the shapes of the data that `sharding.place_workers` would place."""
    n = sharding.pad_workers(data.num_workers, mesh)
    where = sharding.worker_sharding(mesh)

    def shape(x: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype, sharding=where)

    return replace(jax.tree.map(shape, data), padding=n - data.num_workers)


def _everywhere(tree: PyTree, mesh: Mesh) -> PyTree:
    where = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)


def cost(target: str, devices: int, compiled: Compiled, kernels: Iterable[Kernel]) -> Cost:
    """Add up the kernels of a step."""
    kernels, rates = list(kernels), _targets.rates(target)
    return Cost(
        trace_s=compiled.trace_s,
        compile_s=compiled.compile_s,
        kernels=sum(kernel.count for kernel in kernels),
        moved_mb=sum(kernel.count * kernel.moved for kernel in kernels) / 1e6,
        temporary_mb=compiled.temporary / 1e6,
        collectives=sum(kernel.count for kernel in kernels if kernel.is_collective),
        sent_mb=_launches.sent(kernels) * (devices - 1) / devices / 1e6,
        ms=1e3 * sum(rates.seconds(kernel, devices) for kernel in kernels),
    )


def _show(target: str, programs: Mapping[str, Work], arguments: Any) -> dict[str, Any]:
    """Compile and print the steps for a target, and return the figures."""
    costs: dict[str, Cost] = {}
    kernels: dict[str, list[Kernel]] = {}
    reports: dict[str, list[_ptxas.HandWritten]] = {}
    for row, work in programs.items():
        print(f"compiling {row} for {target}", file=sys.stderr)
        compiled = _targets.compile_for(work.function, *work.shapes)
        kernels[row] = _launches.launches(compiled.text)
        costs[row] = cost(target, arguments.devices, compiled, kernels[row])
        reports[row] = _ptxas.reports(compiled.log)
    bare = costs[step.BARE].ms
    figures = {row: asdict(cost) | {"times_bare": cost.ms / bare} for row, cost in costs.items()}
    print(f"{arguments.devices} × {target}")
    columns = [c for c in _COLUMNS if arguments.devices > 1 or c not in _EXCHANGES]
    rows = ([row, *(_COLUMNS[c](figure) for c in columns)] for row, figure in figures.items())
    report.print_table(("step", *columns), rows, _WIDTH)
    _print_hand_written(reports)
    if arguments.kernels:
        for row, found in kernels.items():
            _print_kernels(f"{row}, {target}", target, arguments.devices, found)
    written = {row: [asdict(kernel) for kernel in found] for row, found in reports.items() if found}
    return {"steps": figures, "hand_written": written}


def _print_hand_written(reports: Mapping[str, Sequence[_ptxas.HandWritten]]) -> None:
    rows = [
        [kernel.name, row, str(kernel.registers), str(kernel.spilled), f"{kernel.instructions:,}"]
        for row, found in reports.items()
        for kernel in found
    ]
    if rows:
        headings = ("kernel", "first in", "registers", "spilled, bytes", "PTX instructions")
        report.print_table(headings, rows)


def _print_kernels(title: str, target: str, devices: int, kernels: Sequence[Kernel]) -> None:
    rates = _targets.rates(target)
    longest = sorted(kernels, key=lambda kernel: -rates.seconds(kernel, devices))[:_LISTED]
    rows = (
        [
            kernel.name,
            kernel.kind,
            f"{kernel.count:,}",
            f"{kernel.moved / 1e6:,.2f}",
            report.digits(1e3 * rates.seconds(kernel, devices)),
        ]
        for kernel in longest
    )
    report.print_table((title, "kind", "launches", "MB each", "ms in all"), rows, _WIDTH)


if __name__ == "__main__":
    sys.exit(main())
