"""Figure 1: three workers with f_i(x) = (x - a_i)²/2, on which signSGD and medianSGD stall at 2.

The mean of the local gradients is x - 13/3, their median x - 2: without noise, both algorithms go
to the median's zero and stay. Beside them here: SGD, and the two noisy algorithms.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import medjax
from experiments.paper.claims import Claim
from experiments.paper.options import Options
from experiments.pictures import write_picture
from medjax import theory
from medjax.lab import plots
from medjax.lab.storage import results

TARGETS = (1.0, 2.0, 10.0)
MEAN, MEDIAN = float(np.mean(TARGETS)), float(np.median(TARGETS))
STEP_SIZE = 0.001
START = 0.0005
B = 10.0
NUM_STEPS = 200_000
EVAL_EVERY = 20


def objective(x: Array, a: Array) -> tuple[Array, dict[str, Array]]:
    """Return (x - a)²/2 for each a, and x itself as a metric, for the trajectory.

    Args:
        x: the parameter.
        a: the workers' targets.
    """
    return 0.5 * (x - a) ** 2, {"x": jnp.full_like(a, x)}


def algorithms(b: float = B, key: int = 0) -> dict[str, optax.GradientTransformation]:
    """Return the five algorithms by name.

    Args:
        b: the scale of the noise.
        key: the seed of the noise.
    """
    return {
        "SGD": medjax.mean_sgd(STEP_SIZE),
        "signSGD": medjax.sign_sgd(STEP_SIZE),
        "medianSGD": medjax.median_sgd(STEP_SIZE),
        "Noisy signSGD": medjax.noisy_sign_sgd(STEP_SIZE, b, key=key),
        "Noisy medianSGD": medjax.noisy_median_sgd(STEP_SIZE, b, key=key),
    }


def trajectory(
    optimizer: optax.GradientTransformation, num_steps: int = NUM_STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Run an algorithm; return the recorded steps, and x at each of them.

    Args:
        optimizer: the algorithm.
        num_steps: the number of steps.
    """
    a = np.array(TARGETS, dtype=np.float32)
    data = medjax.stack_workers(a, [np.array([i]) for i in range(len(a))])

    @jax.jit
    def run(data: medjax.WorkerData) -> medjax.Result:
        return medjax.simulate(
            objective,
            jnp.float32(START),
            data,
            optimizer,
            num_steps=num_steps,
            eval_every=EVAL_EVERY,
            key=0,
        )

    result = run(data)
    return np.asarray(result.steps), np.asarray(result.metrics["train_x"], dtype=np.float64)


def time_average(x: np.ndarray) -> float:
    """Average over the second half of the run, when the start is forgotten."""
    return float(x[len(x) // 2 :].mean())


def settings(options: Options) -> dict[str, Any]:
    """Return the settings that the results depend on."""
    del options  # it takes seconds as it is
    return {
        "a": TARGETS,
        "step_size": STEP_SIZE,
        "start": START,
        "b": B,
        "seed": 0,
        "num_steps": NUM_STEPS,
    }


def run(console: Console, folder: Path, options: Options) -> list[Claim]:
    """Run the five algorithms; print the table; write it, the trajectories and the figure.

    Args:
        console: where to print.
        folder: where the results go.
        options: the experiment's options.

    Returns:
        The claims.
    """
    del options
    # Noisy medianSGD moves towards independent draws of the noisy median, so its time average is
    # their mean; Noisy signSGD is at rest where a draw is as often above as below: their median.
    mean = MEAN + theory.median_gap(TARGETS, B)
    median = theory.median_quantile(TARGETS, B)
    expected = dict(zip(algorithms(), (MEAN, MEDIAN, MEDIAN, median, mean), strict=True))
    console.print(
        f"f_i(x) = (x - a_i)²/2, a = {TARGETS}: the mean of the gradients is 0 at {MEAN:.4f}, "
        f"their median at {MEDIAN:g}\n{NUM_STEPS} steps of {STEP_SIZE:g} from {START:g}, "
        f"Gaussian noise with b = {B:g}\n",
        soft_wrap=True,
    )
    trajectories: dict[str, np.ndarray] = {}
    steps = np.array([])
    with console.status("") as status:
        for k, (name, optimizer) in enumerate(algorithms().items(), start=1):
            status.update(f"{name} ({k} of {len(expected)})")
            steps, trajectories[name] = trajectory(optimizer)
    rows = {
        "algorithm": list(trajectories),
        "final_x": [float(x[-1]) for x in trajectories.values()],
        "time_average": [time_average(x) for x in trajectories.values()],
        "expected": [expected[name] for name in trajectories],
        "mean_gradient": [time_average(x) - MEAN for x in trajectories.values()],
    }
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("algorithm", "final x", "time average", "by theory", "mean gradient there"):
        table.add_column(heading, justify="left" if heading == "algorithm" else "right")
    for name, *values in zip(*rows.values(), strict=True):
        table.add_row(name, *(f"{value:.4f}" for value in values))
    console.print(table)
    results.write_table(folder / "trajectories.parquet", {"step": steps, **trajectories})
    results.write_table(folder / "table.parquet", rows)
    write_picture(folder, "fig1", figure(steps, trajectories))
    measured = zip(rows["final_x"], rows["time_average"], rows["expected"], strict=True)
    return claims(dict(zip(rows["algorithm"], measured, strict=True)))


def claims(rows: Mapping[str, tuple[float, float, float]]) -> list[Claim]:
    """Check what the paper says of the toy.

    Args:
        rows: the final x, the time average, and x by theory, of each algorithm.
    """
    found = []
    for name, (final, average, expected) in rows.items():
        if name.startswith("Noisy"):
            # The walk is correlated over 1/δ steps or more: the average of half the run is good to
            # about 0.05.
            text = f"with noise, {name} comes close to the mean's zero"
            holds = abs(average - expected) < 0.15 and abs(average - MEAN) < abs(MEDIAN - MEAN) / 5
            found.append(
                Claim("fig1", text, "Theorem 3-4", f"{MEAN:.3f} - O(1/b)", f"{average:.3f}", holds)
            )
        else:
            where = "mean" if name == "SGD" else "median"
            text = f"{name} goes to the zero of the {where} gradient"
            holds = abs(final - expected) < 0.01
            found.append(Claim("fig1", text, "Fig. 1", f"{expected:.3f}", f"{final:.3f}", holds))
    return found


def figure(steps: np.ndarray, trajectories: dict[str, np.ndarray]) -> Figure:
    """Draw x against the step, and the two gradients on the way of the two that stall.

    Args:
        steps: the recorded steps.
        trajectories: x at each of them, by algorithm.
    """
    drawing, axes = plots.new_figure(1, 3, f"(x - a_i)²/2, a = {TARGETS}, δ = {STEP_SIZE:g}")
    for colour, (name, x) in zip(plots.COLOURS, trajectories.items(), strict=False):
        noisy = name.startswith("Noisy")
        label = f"{name}, b = {B:g}" if noisy else name
        # The jagged curves behind the smooth ones.
        axes[0].plot(
            steps[1:], x[1:], color=colour, label=label, linewidth=1.2, zorder=2 if noisy else 3
        )
    for level, text in ((MEDIAN, "median of a"), (MEAN, "mean of a")):
        axes[0].axhline(level, color="0.4", linestyle=":", linewidth=1)
        axes[0].annotate(text, (steps[1], level), xytext=(0, 3), textcoords="offset points")
    axes[0].set_ylabel("x")
    axes[0].set_xscale("log")
    axes[0].set_ylim(top=9)  # room for the legend above the curves
    axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    for axis, name in zip(axes[1:], ("signSGD", "medianSGD"), strict=True):
        early = steps <= 10_000
        x = trajectories[name][early]
        axis.plot(steps[early], x - MEAN, color=plots.COLOURS[0], label="mean of the gradients")
        axis.plot(steps[early], x - MEDIAN, color=plots.COLOURS[1], label="median of the gradients")
        axis.axhline(0, color="0.4", linestyle=":", linewidth=1)
        axis.set_title(name, fontsize=10)
        axis.set_ylabel("gradient")
        axis.legend(frameon=False, fontsize=8, loc="lower right")
    for axis in axes:
        axis.set_xlabel("step")
    return drawing
