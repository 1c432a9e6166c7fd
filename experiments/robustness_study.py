"""The study of robustness: its rules, attacks and problems, and the runs that they are."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.robustness_picture import Problem
from medjax.lab.settings.config import Settings, configure

NNM = "nnm + "
# b is the best single one of `experiments.which_b`. The adaptive one would have to be agreed upon
# by all workers, with the Byzantine ones among them.
COMMON = {"workers": 20, "batch_size": 32, "worker_momentum": 0.9, "model": "logistic", "b": 0.1}
# Of {0.1, 0.3, 1} and, for votes, {0.001, 0.003, 0.01}, by accuracy on validation data with and
# without attacks.
_STEP_SIZE, _VOTE_STEP_SIZE = 0.3, 0.003
_VOTES = ("sign", "noisy_sign")
_STATEFUL = ("fltrust",)

SPLITS: Mapping[str, Mapping[str, Any]] = {
    "iid": {"partition": "iid"},
    "α = 1": {"partition": "dirichlet", "alpha": 1.0},
    "α = 0.1": {"partition": "dirichlet", "alpha": 0.1},
    "2 shards": {"partition": "shards", "shards_per_worker": 2},
}
"""The partitions by their names: iid, the classes by Dirichlet distributions, or two each."""

WRITTEN: Mapping[str, str] = {
    "iid": "iid",
    "alpha=1": "α = 1",
    "alpha=0.1": "α = 0.1",
    "shards": "2 shards",
}
"""Names of `SPLITS` as they are written on the command line."""

_IID, SKEWED = "iid", "α = 0.1"


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

    def attacks_on(self, rule: str) -> list[str]:
        """List the attacks that are possible: those that try out a rule need it without memory."""
        stateful = rule in _STATEFUL
        return [name for name in self.attacks if not (stateful and name.startswith("optimal"))]

    def narrowed(
        self,
        rules: Sequence[str] | None,
        attacks: Sequence[str] | None,
        splits: Sequence[str] | None,
    ) -> "Study":
        """Return the study of these rules, attacks and splits only; None for all of its own.

        Args:
            rules: names, as in the study.
            attacks: likewise.
            splits: names of `WRITTEN`. One that the study lacks is tried with its largest f.
        """
        names = list(SPLITS) if splits is None else [WRITTEN[name] for name in splits]
        most = max(problem.byzantine for problem in self.problems)
        there = [problem for problem in self.problems if problem.split in names]
        new = [Problem(most, name) for name in names if splits is not None]
        problems = [*there, *(problem for problem in new if problem not in there)]
        return self._replace(
            rules=rules or self.rules, attacks=attacks or self.attacks, problems=problems
        )


FULL = Study(
    rules=(
        *("mean", "median", "noisy_median", "trimmed_mean", "geometric_median", "multi_krum"),
        *("signguard", "clipped_clustering", "fltrust"),
        *(f"{NNM}{rule}" for rule in ("median", "trimmed_mean", "multi_krum")),
        *_VOTES,
    ),
    # In the mean of 20 workers the sign of the gradient turns round where f τ > 20 - f.
    attacks=(
        *("none", "sign_flip", "ipm:tau=10", "alie:tau=1.5", "mimic", "label_flip"),
        *("balanced_flip", "optimal_turn:num_points=8,num_rounds=1"),
    ),
    problems=[*(Problem(4, split) for split in SPLITS), Problem(2, SKEWED)],
    settings={"dataset": "mnist5k", "steps": 300},
    seeds=5,
)
QUICK = Study(
    rules=(
        *("mean", "trimmed_mean", "signguard", "fltrust", f"{NNM}trimmed_mean"),
        *("sign", "noisy_sign"),
    ),
    attacks=("none", "ipm:tau=10", "alie:tau=1.5", "balanced_flip"),
    problems=[Problem(4, _IID), Problem(4, SKEWED)],
    settings={"dataset": "digits", "steps": 100},
    seeds=2,
)


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
        **COMMON,
        **SPLITS[problem.split],
        **study.settings,
    )
