"""Figure 2 of arXiv version 2: five workers with 100 images each, of two digits nobody else has.

Noise of scale 1e-9 and 1e-5, sub-sampling 10 and 1 of the 100 images, and both, at the paper's step
size for it and at a tenth of it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from experiments.paper import arms
from experiments.paper.claims import Claim
from experiments.paper.options import Options
from medjax.lab.plots import Curves
from medjax.lab.settings.config import Settings, configure

LARGE_STEP, SMALL_STEP = "signSGD, the paper's δ", "signSGD, a tenth of the paper's δ"
MEDIAN = "medianSGD"
ALGORITHMS = {
    LARGE_STEP: ("sign", 0.01),
    SMALL_STEP: ("sign", 0.001),
    MEDIAN: ("median", 0.01),
}
SCALES = (1e-9, 1e-5)
BATCH_SIZES = (10, 1)
# In the quick version signSGD, whose claims are of the first steps, is given fewer.
_STEPS = {"sign": {False: 10_000, True: 4_000}, "median": {False: 10_000, True: 8_000}}
_WHERE = "v2 Fig. 2"
_METRICS = ("train_loss", "grad_norm", "test_accuracy")


def settings(options: Options) -> dict[str, Any]:
    """Return the settings that the results depend on."""
    return {
        "dataset": "mnist5k",
        "workers": 5,
        "classes_per_worker": 2,
        "examples_per_worker": 100,
        "steps": {rule: options.steps or steps[options.quick] for rule, steps in _STEPS.items()},
    }


def algorithm(rule: str, common: dict[str, Any], quick: bool = False) -> dict[str, Settings]:
    """Return the runs of one rule: plain, with noise, with sub-sampling, and with both.

    The quick version leaves out medianSGD's noise, of which nothing is claimed.

    Args:
        rule: the rule's name.
        common: the settings that all runs share.
        quick: whether it is the quick version.

    Returns:
        The runs by label.
    """
    found, noisy = {"b = 0": configure(rule=rule, **common)}, not (quick and rule == "median")
    for b in SCALES if noisy else ():
        found[f"b = {b:g}"] = configure(rule=f"noisy_{rule}", b=b, **common)
    for size in BATCH_SIZES:
        found[f"batches of {size}"] = configure(rule=rule, batch_size=size, **common)
    both = {"b": SCALES[-1], "batch_size": BATCH_SIZES[0]}
    if noisy:
        name = f"b = {both['b']:g}, batches of {both['batch_size']}"
        found[name] = configure(rule=f"noisy_{rule}", **both, **common)
    return found


def run(console: Console, folder: Path, options: Options) -> list[Claim]:
    """Train, draw, and check what the paper says.

    Args:
        console: where to print.
        folder: where the results go.
        options: the experiment's options.

    Returns:
        The claims.
    """
    common = settings(options)
    steps = common.pop("steps")
    runs = {
        (title, label): run
        for title, (rule, lr) in ALGORITHMS.items()
        if not (options.quick and title == LARGE_STEP)
        for label, run in algorithm(
            rule, common | arms.length(steps[rule]) | {"lr": lr}, options.quick
        ).items()
    }
    trained = arms.train(console, folder / "training", runs)
    curves: dict[str, dict[str, Curves]] = {title: {} for title, _ in runs}
    for (title, label), curve in trained.items():
        curves[title][label] = curve
    title = "5 workers with 100 images each, of two digits that nobody else has"
    arms.write(console, folder, title, _METRICS, curves)
    return claims(curves)


def claims(curves: Mapping[str, Mapping[str, Curves]]) -> list[Claim]:
    """Check what the paper's figure shows, at the smaller step size.

    Gradient norms are averaged over the steps, as in the theorems: the ends jump about.
    """
    signs, medians = curves[SMALL_STEP], curves[MEDIAN]
    plain, end = _average(signs["b = 0"]), arms.final(signs["b = 0"], "grad_norm")
    ours = f"‖∇f‖ {plain:.3g} on average, {end:.3g} at the end"
    text = "full-batch signSGD without noise keeps a large gradient"
    found = [Claim("fig2-subset", text, _WHERE, "large, constant", ours, min(plain, end) > 1)]
    for label in list(signs)[2:]:
        found.append(_shrinks(f"signSGD, {label}", _average(signs[label]), plain))
    for label in (f"batches of {size}" for size in BATCH_SIZES):
        norm = _average(medians[label])
        found.append(_shrinks(f"medianSGD, {label}", norm, _average(medians["b = 0"])))
    best, worst = (
        arms.final(signs[label], "test_accuracy") for label in (list(signs)[-1], "b = 0")
    )
    text = "noise and sub-sampling make signSGD more accurate"
    ours = f"test accuracy {best:.3f} against {worst:.3f}"
    found.append(Claim("fig2-subset", text, _WHERE, "higher", ours, best > worst + 0.1))
    return found


def _shrinks(what: str, norm: float, plain: float) -> Claim:
    text = f"{what}: the gradient shrinks"
    ours = f"‖∇f‖ {norm:.3g} on average, against {plain:.3g}"
    return Claim("fig2-subset", text, _WHERE, "much smaller", ours, norm < 0.7 * plain)


def _average(curve: Curves) -> float:
    return float(np.mean(curve.columns["grad_norm"]))
