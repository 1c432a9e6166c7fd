"""Figure 3: ResNet-20 without batch norm, trained by signSGD; the noise follows the gradients.

Every worker's noise in a parameter tensor W has b_W = 0.1 · max_i max_j |g_{i,W,j}|. With it,
signSGD on heterogeneous data is to come near signSGD on homogeneous data. All have the step size
that is best on homogeneous data.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.paper import arms
from experiments.paper.claims import Claim
from experiments.paper.options import Options
from medjax.lab.plots import Curves
from medjax.lab.settings.config import Settings, configure

PLAIN, NOISY, HOMOGENEOUS = "heterogeneous", "heterogeneous, adaptive noise", "homogeneous"
_TITLE = "signSGD with majority vote"
_TRAINED = 0.5  # where nothing trains, as with too large steps, the other claims say nothing
_METRICS = ("train_loss", "train_accuracy", "test_accuracy")
# With equally many examples for every worker, the first and the last arm are one program.
_QUICK = {
    "dataset": "digits",
    "examples_per_worker": 70,
    "steps": 400,
    "batch_size": 8,
    "lr": 5e-4,
}
STEP_SIZES = (5e-4, 2e-4, 1e-4, 5e-5)
_TUNING_STEPS, _VALIDATION = 300, 0.1
_FULL = {
    "dataset": "mnist5k",
    "steps": 7_000,
    "batch_size": 16,
    "eval_examples": 200,
    "lr_schedule": "1000:2,3000:10,5000:20",
}


def settings(options: Options) -> dict[str, Any]:
    """Return the settings that the results depend on."""
    chosen = {} if options.quick else {"step_sizes": STEP_SIZES, "tuning_steps": _TUNING_STEPS}
    found = {"workers": 10, "model": "resnet20"} | (_QUICK if options.quick else _FULL) | chosen
    asked = {"dataset": options.dataset, "steps": options.steps}
    return found | {name: value for name, value in asked.items() if value is not None}


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
    step_sizes, tuning_steps = (common.pop(x, None) for x in ("step_sizes", "tuning_steps"))
    common |= arms.length(common["steps"], 20)
    apart: dict[str, Any] = {"partition": "by_label", "classes_per_worker": 1}
    runs: dict[str, Settings] = {
        PLAIN: configure(rule="sign", **apart, **common),
        NOISY: configure(rule="noisy_sign", b="adaptive:0.1", **apart, **common),
        HOMOGENEOUS: configure(rule="sign", partition="iid", **common),
    }
    every = None if options.quick else common["eval_every"]
    if step_sizes is not None:
        alone = {HOMOGENEOUS: replace(runs[HOMOGENEOUS], validation=_VALIDATION)}
        best = arms.tuned(console, folder / "tuning", alone, step_sizes, tuning_steps)
        runs = {label: replace(run, lr=best[HOMOGENEOUS].lr) for label, run in runs.items()}
    trained = arms.train(console, folder / "training", runs, every)
    name = common["dataset"].partition(":")[0]
    title = f"ResNet-20 without batch norm, 10 workers, {name}"
    arms.write(console, folder, title, _METRICS, {_TITLE: trained})
    return claims(trained)


def claims(curves: Mapping[str, Curves]) -> list[Claim]:
    """Check what the paper's figure shows."""
    plain, noisy, homogeneous = (
        # Single measurements jump by a third, so a longer part than elsewhere.
        arms.final(curves[label], "test_accuracy", share=0.25)
        for label in (PLAIN, NOISY, HOMOGENEOUS)
    )
    return [
        Claim(
            "fig3",
            "signSGD trains on homogeneous data",
            "Fig. 3",
            "about 0.75",
            f"{homogeneous:.3f}",
            homogeneous > _TRAINED,
        ),
        Claim(
            "fig3",
            "with noise, signSGD on heterogeneous data is more accurate",
            "Fig. 3",
            "about 0.75 against 0.70",
            f"{noisy:.3f} against {plain:.3f}",
            noisy > plain,
        ),
        Claim(
            "fig3",
            "it comes nearer to homogeneous data",
            "Fig. 3",
            "close",
            f"{abs(homogeneous - noisy):.3f} apart, without noise {homogeneous - plain:.3f}",
            abs(homogeneous - noisy) < homogeneous - plain,
        ),
    ]
