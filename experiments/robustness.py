"""The study of rules under attack: `python -m experiments.robustness`.

Rules × attacks × Byzantine workers × heterogeneity: f of 20 workers lie, the rules are told of as
many, and a rule is judged by the worst of the attacks. Every worker sends its momentum, as in
Karimireddy et al. (2021). A rule has one step size for all attacks.
"""

import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments import robustness_picture
from experiments.paper import claims
from experiments.paper.claims import Claim, text_table
from experiments.pictures import write_picture
from experiments.robustness_picture import Accuracies, Problem, worst
from experiments.robustness_study import COMMON, FULL, NNM, QUICK, SKEWED, WRITTEN, Study, run
from medjax.lab.settings import cli
from medjax.lab.settings.config import Settings
from medjax.lab.settings.flags import add_out
from medjax.lab.storage import results
from medjax.lab.sweeps import select
from medjax.lab.sweeps.select import Statistic
from medjax.lab.sweeps.session import run_grid
from medjax.lab.task.training import stop_on_signal

_IPM, _ALIE = "ipm:tau=10", "alie:tau=1.5"
_AXES = {"rules": FULL.rules, "attacks": FULL.attacks, "splits": tuple(WRITTEN)}
"""The values of each flag."""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command.

    Args:
        argv: the command line; by default the process's own.

    Returns:
        0; 1 if a claim doesn't hold. A mistake in the settings exits with 2.
    """
    parser = cli.Parser("python -m experiments.robustness", __doc__ or "")
    parser.add_argument("--quick", action="store_true", help="fewer of each, in four minutes")
    for name, names in _AXES.items():
        parser.add_argument(
            f"--{name}",
            metavar="NAME",
            nargs="+",
            action=cli.Once,
            type=cli.one_of(name.removesuffix("s"), names),
            help=f"only these of {', '.join(names)} (default: all of the study)",
        )
    add_out(parser)
    arguments = parser.parse_args(argv)
    study = QUICK if arguments.quick else FULL
    study = study.narrowed(arguments.rules, arguments.attacks, arguments.splits)
    name = "robustness-quick" if arguments.quick else "robustness"
    folder = Path(arguments.out or results.DEFAULT_PARENT / name)
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    runs = list(dict.fromkeys(run(study, *key) for key in _keys(study)))

    def work() -> int:
        with stop_on_signal() as stop, run_grid(console, folder, runs, stop) as columns:
            stop.finishing = True
            found = accuracies(study, runs, columns)
            _show(console, study, found)
            told = check(study, found)
            if told:
                console.print()
                console.print(claims.table(told))
            _write(folder, study, found, told)
        console.print(f"\nresults in {folder}", soft_wrap=True)
        return 0 if all(claim.holds for claim in told) else 1

    return cli.carry_out(parser, folder, work)


def accuracies(study: Study, runs: Sequence[Settings], columns: select.Columns) -> Accuracies:
    """Return the last test accuracy of each problem and rule, under each attack.

    Args:
        study: the study.
        runs: its runs.
        columns: their measurements.
    """
    final = {c.run: c.final["test_accuracy"] for c in select.candidates(runs, columns)}
    return {
        (problem, rule): {a: final[run(study, problem, rule, a, 0)] for a in study.attacks_on(rule)}
        for problem, rule in itertools.product(study.problems, study.rules)
    }


def check(study: Study, found: Accuracies) -> list[Claim]:
    """Check what the literature says in the most heterogeneous problem.

    Args:
        study: the study.
        found: the accuracies.

    Returns:
        The claims on what the study has.
    """
    problem = Problem(max(p.byzantine for p in study.problems), SKEWED)
    of = {rule: found.get((problem, rule), {}) for rule in FULL.rules}
    plain, mixed, trust = (of[name] for name in ("trimmed_mean", f"{NNM}trimmed_mean", "fltrust"))
    mean, told = of["mean"], []
    nnm = f"{problem}: before the trimmed mean, NNM raises the accuracy"
    if plain and mixed:
        where = f"{nnm} under the worst attack"
        told.append(_higher(where, "Allouah et al. (2023)", worst(mixed)[1], worst(plain)[1]))
    if _ALIE in plain and _ALIE in mixed:
        where = f"{nnm} under {_ALIE}"
        told.append(_higher(where, "Allouah et al. (2023)", mixed[_ALIE], plain[_ALIE]))
    if plain and trust:
        where = f"{problem}: FLTrust bears the worst attack better than the trimmed mean"
        told.append(_higher(where, "Cao et al. (2021)", worst(trust)[1], worst(plain)[1]))
    if _IPM in mean:
        claim, holds = f"{problem}: the mean breaks under {_IPM}", mean[_IPM].mean < 0.2
        ours = f"{mean[_IPM]:.3f}"
        told.append(Claim("robustness", claim, "Xie et al. (2020)", "0.1", ours, holds))
    return told


def _higher(claim: str, where: str, high: Statistic, low: Statistic) -> Claim:
    text = f"{high:.3f} against {low:.3f}"
    return Claim("robustness", claim, where, "higher", text, high.mean > low.mean)


def _show(console: Console, study: Study, found: Accuracies) -> None:
    """Print the tables."""
    for problem in study.problems:
        console.print(f"\n{problem}: test accuracy, mean ± standard error over seeds\n")
        rows = []
        for rule in study.rules:
            attack, value = worst(found[problem, rule])
            under = found[problem, rule]
            cells = (f"{under[a]:.3f}" if a in under else "–" for a in study.attacks)
            rows.append([rule, *cells, f"{value:.3f} {attack.partition(':')[0]}"])
        console.print(text_table(("rule", *study.attacks, "worst"), rows))
    rows = noise_gains(study, found)
    if rows:
        console.print("\nWhat noise does to the accuracy:\n")
        headings = ("problem", "rule", "without an attack", "in the worst case")
        console.print(text_table(headings, rows))


def noise_gains(study: Study, found: Accuracies) -> list[tuple[str, ...]]:
    """Return, for each problem and noisy rule, the accuracy gained by the noise.

    Args:
        study: the study.
        found: the accuracies.

    Returns:
        Rows of a table: problem, rule, and the gains without an attack and in the worst case.
    """
    noisy = [rule for rule in study.rules if rule.startswith("noisy_")]
    noisy = [rule for rule in noisy if rule.removeprefix("noisy_") in study.rules]
    noisy = noisy if "none" in study.attacks else []
    rows = []
    for problem, rule in itertools.product(study.problems, noisy):
        before, after = found[problem, rule.removeprefix("noisy_")], found[problem, rule]
        worsts = _gain(worst(before)[1], worst(after)[1])
        rows.append((str(problem), rule, _gain(before["none"], after["none"]), worsts))
    return rows


def _gain(before: Statistic, after: Statistic) -> str:
    error = math.hypot(before.error, after.error)
    gain = f"{after.mean - before.mean:+.3f} ± {error:.3f}"
    return f"{gain}, from {before.mean:.3f} to {after.mean:.3f}"


def _write(folder: Path, study: Study, found: Accuracies, told: Sequence[Claim]) -> None:
    """Write the tables and the picture."""
    every = [(key, item) for key, under in found.items() for item in under.items()]
    tables = {"accuracy": every, "worst": [(key, worst(under)) for key, under in found.items()]}
    headings = ("rule", "byzantine", "split", "attack", "test_accuracy", "error")
    for name, items in tables.items():
        rows = [
            (rule, *problem, attack, value.mean, value.error)
            for (problem, rule), (attack, value) in items
        ]
        columns = {h: [row[k] for row in rows] for k, h in enumerate(headings)}
        results.write_table(folder / f"{name}.parquet", columns)
    claims.write(folder, told)
    write_picture(folder, "robustness", robustness_picture.figure(found, _title(study)))


def _keys(study: Study) -> list[tuple[Problem, str, str, int]]:
    return [
        (problem, rule, attack, seed)
        for problem, rule in itertools.product(study.problems, study.rules)
        for attack, seed in itertools.product(study.attacks_on(rule), range(study.seeds))
    ]


def _title(study: Study) -> str:
    settings = COMMON | dict(study.settings)
    return (
        f"Test accuracy in %: {settings['dataset']}, {settings['model']}, {settings['workers']} "
        f"workers, {settings['steps']} steps, mean of {study.seeds} seeds\n"
        "worst case: the lowest under any attack, and which; outlined: the best of its column"
    )


if __name__ == "__main__":
    sys.exit(main())
