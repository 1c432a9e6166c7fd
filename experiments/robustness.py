"""The study of rules under attack: `python -m experiments.robustness`.

Rules × attacks × Byzantine workers × heterogeneity: f of 20 workers lie, the rules are told of as
many, and a rule is judged by the worst of the attacks. Every worker sends its momentum, as in
Karimireddy et al. (2021). A rule has one step size for all attacks.
"""

import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from experiments import robustness_picture
from experiments.paper import claims
from experiments.paper.claims import Claim, text_table
from experiments.pictures import write_picture
from experiments.robustness_picture import Accuracies, Problem, worst
from medjax.lab.settings import cli
from medjax.lab.settings.config import Settings, configure
from medjax.lab.settings.flags import add_out
from medjax.lab.storage import results
from medjax.lab.sweeps import select
from medjax.lab.sweeps.select import Statistic
from medjax.lab.sweeps.session import run_grid
from medjax.lab.task.training import stop_on_signal

NNM = "nnm + "
# b is the best single one of `experiments.which_b`. The adaptive one would have to be agreed upon
# by all workers, with the Byzantine ones among them.
_COMMON = {"workers": 20, "batch_size": 32, "worker_momentum": 0.9, "model": "logistic", "b": 0.1}
# Of {0.1, 0.3, 1} and, for votes, {0.001, 0.003, 0.01}, by accuracy on validation data with and
# without attacks.
_STEP_SIZE, _VOTE_STEP_SIZE = 0.3, 0.003
_VOTES = ("sign", "noisy_sign")

SPLITS: Mapping[str, Mapping[str, Any]] = {
    "iid": {"partition": "iid"},
    "α = 1": {"partition": "dirichlet", "alpha": 1.0},
    "α = 0.1": {"partition": "dirichlet", "alpha": 0.1},
}
"""The partitions by their names, from no heterogeneity to the most."""

_IID, _SKEWED = "iid", "α = 0.1"


class Study(NamedTuple):
    """A study: every rule under every attack in each of the problems.

    Attributes:
        rules: the rules' names, with `NNM` before them for nearest-neighbour mixing.
        attacks: the attacks as on the command line, or "none".
        problems: the numbers of Byzantine workers and names of `SPLITS`.
        settings: the settings that all runs share.
        seeds: the number of seeds.
    """

    rules: Sequence[str]
    attacks: Sequence[str]
    problems: Sequence[Problem]
    settings: Mapping[str, Any]
    seeds: int


FULL = Study(
    rules=(
        *("mean", "median", "noisy_median", "trimmed_mean", "geometric_median", "multi_krum"),
        *(f"{NNM}{rule}" for rule in ("median", "trimmed_mean", "multi_krum")),
        *_VOTES,
    ),
    # In the mean of 20 workers the sign of the gradient turns round where f τ > 20 - f.
    attacks=("none", "sign_flip", "ipm:tau=10", "alie:tau=1.5", "mimic", "label_flip"),
    problems=[*(Problem(4, split) for split in SPLITS), Problem(2, _SKEWED)],
    settings={"dataset": "mnist5k", "steps": 300},
    seeds=5,
)
QUICK = Study(
    rules=("mean", "trimmed_mean", f"{NNM}trimmed_mean", "sign", "noisy_sign"),
    attacks=("none", "ipm:tau=10", "alie:tau=1.5"),
    problems=[Problem(4, _IID), Problem(4, _SKEWED)],
    settings={"dataset": "digits", "steps": 100},
    seeds=2,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command.

    Args:
        argv: the command line; by default the process's own.

    Returns:
        0; 1 if a claim doesn't hold. A mistake in the settings exits with 2.
    """
    parser = cli.Parser("python -m experiments.robustness", __doc__ or "")
    parser.add_argument("--quick", action="store_true", help="fewer of each, in two minutes")
    add_out(parser)
    arguments = parser.parse_args(argv)
    study = QUICK if arguments.quick else FULL
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
            console.print()
            console.print(claims.table(told))
            _write(folder, study, found, told)
        console.print(f"\nresults in {folder}", soft_wrap=True)
        return 0 if all(claim.holds for claim in told) else 1

    return cli.carry_out(parser, folder, work)


def run(study: Study, problem: Problem, rule: str, attack: str, seed: int) -> Settings:
    """Return the settings of a run of a problem.

    Args:
        study: the study.
        problem: the problem.
        rule: the rule's name, as in `Study`.
        attack: the attack, as in `Study`.
        seed: the seed.
    """
    return configure(
        drop=True,  # f without an attack, b of rules without noise
        rule=rule.removeprefix(NNM),
        mix="nnm" if rule.startswith(NNM) else None,
        attack=None if attack == "none" else attack,
        byzantine=problem.byzantine,
        lr=_VOTE_STEP_SIZE if rule in _VOTES else _STEP_SIZE,
        eval_every=study.settings["steps"],
        seed=seed,
        **_COMMON,
        **SPLITS[problem.split],
        **study.settings,
    )


def accuracies(study: Study, runs: Sequence[Settings], columns: select.Columns) -> Accuracies:
    """Return the last test accuracy of each problem and rule, under each attack.

    Args:
        study: the study.
        runs: its runs.
        columns: their measurements.
    """
    final = {c.run: c.final["test_accuracy"] for c in select.candidates(runs, columns)}
    return {
        (problem, rule): {a: final[run(study, problem, rule, a, 0)] for a in study.attacks}
        for problem, rule in itertools.product(study.problems, study.rules)
    }


def check(study: Study, found: Accuracies) -> list[Claim]:
    """Check what the literature says in the most heterogeneous problem.

    Args:
        study: the study.
        found: the accuracies.

    Returns:
        The claims.
    """
    problem = Problem(max(p.byzantine for p in study.problems), _SKEWED)
    ipm, alie = (_named(study, name) for name in ("ipm", "alie"))
    plain, mixed = (found[problem, name] for name in ("trimmed_mean", f"{NNM}trimmed_mean"))
    told = [
        _higher(
            f"{problem}: before the trimmed mean, NNM raises the accuracy {where}",
            "Allouah et al. (2023)",
            after,
            before,
        )
        for where, after, before in (
            ("under the worst attack", worst(mixed)[1], worst(plain)[1]),
            (f"under {alie}", mixed[alie], plain[alie]),
        )
    ]
    ours, claim = found[problem, "mean"][ipm], f"{problem}: the mean breaks under {ipm}"
    holds = ours.mean < 0.2
    return [*told, Claim("robustness", claim, "Xie et al. (2020)", "0.1", f"{ours:.3f}", holds)]


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
            cells = (f"{v:.3f}" for v in found[problem, rule].values())
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


def _named(study: Study, name: str) -> str:
    return next(attack for attack in study.attacks if attack.startswith(name))


def _keys(study: Study) -> list[tuple[Problem, str, str, int]]:
    parts = (study.problems, study.rules, study.attacks, range(study.seeds))
    return list(itertools.product(*parts))


def _title(study: Study) -> str:
    settings = _COMMON | dict(study.settings)
    return (
        f"Test accuracy in %: {settings['dataset']}, {settings['model']}, {settings['workers']} "
        f"workers, {settings['steps']} steps, mean of {study.seeds} seeds\n"
        "worst case: the lowest under any attack, and which; outlined: the best of its column"
    )


if __name__ == "__main__":
    sys.exit(main())
