"""Figure 2 of arXiv version 2: five workers with 100 images each, of two digits nobody else has.

Noise of scale 1e-9 and 1e-5, sub-sampling 10 and 1 of the 100 images, and both, at the paper's step
size for it and at a tenth of it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.config import RunConfig, configure
from experiments.paper import arms
from experiments.paper.claims import Claim
from experiments.paper.options import Options
from experiments.plots import Curves

LARGE_STEP, SMALL_STEP = "signSGD, the paper's δ", "signSGD, a tenth of it"
MEDIAN = "medianSGD"
ALGORITHMS = {
    LARGE_STEP: ("sign", 0.01),
    SMALL_STEP: ("sign", 0.001),
    MEDIAN: ("median", 0.01),
}
SCALES = (1e-9, 1e-5)
BATCH_SIZES = (10, 1)
_STEPS = {False: 10_000, True: 2_500}
_METRICS = ("train_loss", "grad_norm", "test_accuracy")


def settings(options: Options) -> dict[str, Any]:
    """What the experiment depends on."""
    return {
        "dataset": "mnist5k",
        "workers": 5,
        "classes_per_worker": 2,
        "examples_per_worker": 100,
        "steps": options.steps or _STEPS[options.quick],
    }


def algorithm(rule: str, common: dict[str, Any]) -> dict[str, RunConfig]:
    """One rule without anything, with noise, with sub-sampling, and with both."""
    found = {"b = 0": configure(rule=rule, **common)}
    for b in SCALES:
        found[f"b = {b:g}"] = configure(rule=f"noisy_{rule}", b=b, **common)
    for size in BATCH_SIZES:
        found[f"batches of {size}"] = configure(rule=rule, batch_size=size, **common)
    both = {"b": SCALES[-1], "batch_size": BATCH_SIZES[0]}
    name = f"b = {both['b']:g}, batches of {both['batch_size']}"
    return found | {name: configure(rule=f"noisy_{rule}", **both, **common)}


def run(console: Console, folder: Path, options: Options) -> list[Claim]:
    """Train, draw, and check what the paper says."""
    common = settings(options)
    common["eval_every"] = max(1, common["steps"] // 100)
    runs = {
        (title, label): run
        for title, (rule, lr) in ALGORITHMS.items()
        if not (options.quick and title == LARGE_STEP)
        for label, run in algorithm(rule, common | {"lr": lr}).items()
    }
    trained = arms.train(console, folder / "training", runs)
    curves: dict[str, dict[str, Curves]] = {title: {} for title, _ in runs}
    for (title, label), curve in trained.items():
        curves[title][label] = curve
    title = "5 workers with 100 images each, of two digits that nobody else has"
    arms.write(console, folder, title, _METRICS, curves)
    return claims(curves)


def claims(curves: Mapping[str, Mapping[str, Curves]]) -> list[Claim]:
    """What the paper's figure shows, and what ours does at the smaller step size."""
    signs, medians = curves[SMALL_STEP], curves[MEDIAN]
    plain = arms.final(signs["b = 0"], "grad_norm")
    accuracy = arms.final(signs["b = 0"], "test_accuracy")
    found = [
        Claim(
            "fig2-subset",
            "full-batch signSGD without noise keeps a large gradient",
            "v2 Fig. 2",
            "large, constant",
            f"‖∇f‖ = {plain:.3g}",
            plain > 1,
        )
    ]
    for label in ("b = 1e-05", "batches of 10", "batches of 1", "b = 1e-05, batches of 10"):
        norm = arms.final(signs[label], "grad_norm")
        found.append(
            Claim(
                "fig2-subset",
                f"signSGD with {label}: the gradient shrinks",
                "v2 Fig. 2",
                "much smaller",
                f"‖∇f‖ = {norm:.3g}, {plain / norm:.3g}× smaller",
                norm < plain / 2,
            )
        )
    best = max(arms.final(curve, "test_accuracy") for curve in signs.values())
    found.append(
        Claim(
            "fig2-subset",
            "noise or sub-sampling makes signSGD generalise better",
            "v2 Fig. 2",
            "higher accuracy",
            f"test accuracy {best:.3f} against {accuracy:.3f}",
            best > accuracy + 0.1,
        )
    )
    plain, sampled = (
        arms.final(medians[label], "grad_norm") for label in ("b = 0", "batches of 1")
    )
    found.append(
        Claim(
            "fig2-subset",
            "medianSGD with batches of 1: the gradient shrinks",
            "v2 Fig. 2",
            "much smaller",
            f"‖∇f‖ = {sampled:.3g} against {plain:.3g}",
            sampled < plain / 2,
        )
    )
    return found
