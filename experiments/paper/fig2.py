"""Figure 2: ten workers with one digit each; noise or sub-sampling lets sign and median train.

Every algorithm has its own step size, the best on validation data of {1, 0.1, 0.01, 0.001}.
"""

from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.config import RunConfig, configure
from experiments.paper import arms
from experiments.paper.claims import Claim
from experiments.paper.options import Options
from experiments.plots import Curves

STEP_SIZES = (1.0, 0.1, 0.01, 0.001)
SCALES = (1e-5, 1e-3, 1e-2)
BATCH_SIZE = 128
ALGORITHMS = {"signSGD with majority vote": "sign", "medianSGD": "median"}
_STEPS = {False: 50_000, True: 300}
_TUNING_STEPS = {False: 1_000, True: 100}


def settings(options: Options) -> dict[str, Any]:
    """What the experiment depends on."""
    return {
        "dataset": options.dataset or "mnist5k",
        "workers": 10,
        "classes_per_worker": 1,
        "validation": 0.1,
        "steps": options.steps or _STEPS[options.quick],
        "step_sizes": STEP_SIZES,
        "tuning_steps": _TUNING_STEPS[options.quick],
    }


def algorithm(rule: str, common: dict[str, Any]) -> dict[str, RunConfig]:
    """One rule without noise, with more and more of it, and with sub-sampling."""
    noisy = {f"b = {b:g}": configure(rule=f"noisy_{rule}", b=b, **common) for b in SCALES}
    sampled = configure(rule=rule, batch_size=BATCH_SIZE, **common)
    return {"b = 0": configure(rule=rule, **common)} | noisy | {f"batches of {BATCH_SIZE}": sampled}


def run(console: Console, folder: Path, options: Options) -> list[Claim]:
    """Choose the step sizes, train, draw, and check what the paper says."""
    common = settings(options)
    tuning_steps = common.pop("tuning_steps")
    step_sizes = common.pop("step_sizes")
    common["eval_every"] = max(1, common["steps"] // 100)
    runs = {
        (title, label): run
        for title, rule in ALGORITHMS.items()
        for label, run in algorithm(rule, common).items()
    }
    best = arms.tuned(console, folder / "tuning", runs, step_sizes, tuning_steps)
    curves: dict[str, dict[str, Curves]] = {title: {} for title in ALGORITHMS}
    for (title, label), curve in arms.train(console, folder / "training", best).items():
        curves[title][f"{label} (δ = {best[title, label].lr:g})"] = curve
    title = f"10 workers with one digit each of {common['dataset']}, 784-128-10 network"
    arms.write(console, folder, title, tuple(arms.METRICS), curves)
    return claims(curves)


def claims(curves: dict[str, dict[str, Curves]]) -> list[Claim]:
    """What the paper's figure shows, and what ours does."""
    return []
