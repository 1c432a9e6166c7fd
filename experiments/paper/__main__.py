"""Regenerate a figure of the paper, with its data: `python -m experiments.paper NAME`."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from experiments.paper import claims, fig1, fig2, fig2_subset, fig3, theory
from experiments.paper.claims import Claim
from experiments.paper.options import Options, check_images
from medjax.lab.settings import cli
from medjax.lab.storage import results
from medjax.lab.storage.locks import alone_in


class Experiment(NamedTuple):
    """A figure, or a group of theorems.

    Attributes:
        run: carries it out, given where to print, a folder for the results, and the options;
            returns the claims.
        settings: returns the settings that its results depend on, for the record.
    """

    run: Callable[[Console, Path, Options], list[Claim]]
    settings: Callable[[Options], Mapping[str, Any]]


EXPERIMENTS = {
    "fig1": Experiment(fig1.run, fig1.settings),
    "fig2-subset": Experiment(fig2_subset.run, fig2_subset.settings),
    "fig2": Experiment(fig2.run, fig2.settings),
    "fig3": Experiment(fig3.run, fig3.settings),
    "theory": Experiment(theory.run, theory.settings),
}
"""The experiments by name."""

_ON_DATA = ("fig2", "fig3")
_TRAINED = ("fig2-subset", "fig2", "fig3")
_DESCRIPTION = """\
Regenerate a figure of Chen et al. (2020), or check its theorems: the pictures, the data behind
them, and a table of the paper's claims beside what we measured.

  fig1         the toy problem on which signSGD and medianSGD stall
  fig2-subset  5 workers with 100 images each, of two digits that nobody else has (arXiv version 2)
  fig2         10 workers with one digit each
  fig3         a residual network on images, with the noise that follows the gradients
  theory       theorems 3 to 6: the gap between median and mean, and the rates
  all          all of these

An interrupted figure goes on where it was when it is asked for again."""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command.

    Args:
        argv: the command line; by default the process's own.

    Returns:
        0; 1 if a claim doesn't hold. A mistake in the settings exits with 2.
    """
    parser = cli.Parser("python -m experiments.paper", _DESCRIPTION)
    parser.add_argument(
        "name", metavar="NAME", type=cli.one_of("figure", (*EXPERIMENTS, "all")), help="see above"
    )
    parser.add_argument("--quick", action="store_true", help="minutes, not hours: fewer steps")
    parser.add_argument(
        "--dataset", metavar="NAME", help="for fig2 and fig3, as in run (default: mnist5k)"
    )
    parser.add_argument(
        "--steps",
        metavar="T",
        type=cli.integer(1),
        help="for fig2-subset, fig2 and fig3 (default: 10000, 10000 and 7000, fewer with --quick; "
        "the paper's are 50000, 50000 and about 7000)",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=cli.folder, help="a folder (default: runs/paper/NAME)"
    )
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    names = [*EXPERIMENTS] if arguments.name == "all" else [arguments.name]
    for flag, those in (("dataset", _ON_DATA), ("steps", _TRAINED)):
        if getattr(arguments, flag) is not None and not set(names) & set(those):
            parser.error(f"--{flag} goes only with {', '.join(those)} or all")
    options = Options(arguments.quick, arguments.dataset, arguments.steps)
    base = results.DEFAULT_PARENT / ("paper-quick" if arguments.quick else "paper")
    if arguments.out:
        base = Path(arguments.out)
    elif arguments.name != "all":
        base = base / arguments.name
    folders = {name: base / name if arguments.name == "all" else base for name in names}

    def work() -> int:
        for name in names:
            results.check_own_folder(folders[name], **_purpose(name, options))
        if options.dataset is not None:
            check_images(options.dataset)
        found: list[Claim] = []
        for name in names:
            with alone_in(folders[name]):
                found += _experiment(console, name, folders[name], options)
        if arguments.name == "all":
            claims.write(base, found)
            console.print("\nall claims")
            console.print(claims.table(found))
            console.print(f"\nresults in {base}", soft_wrap=True)
        return 0 if all(claim.holds for claim in found) else 1

    return cli.carry_out(parser, base, work)


def _experiment(console: Console, name: str, folder: Path, options: Options) -> list[Claim]:
    console.print(f"\n── {name} ──\n")
    experiment = EXPERIMENTS[name]
    record = {"folder": str(folder), **_purpose(name, options)}
    record |= {"config": experiment.settings(options), **results.provenance()}
    results.write_json(folder / results.CONFIG, record)
    found = experiment.run(console, folder, options)
    claims.write(folder, found)
    console.print()
    console.print(claims.table(found))
    console.print(f"\nresults in {folder}", soft_wrap=True)
    return found


def _purpose(name: str, options: Options) -> dict[str, object]:
    return {"experiment": name, **options._asdict()}


if __name__ == "__main__":
    sys.exit(main())
