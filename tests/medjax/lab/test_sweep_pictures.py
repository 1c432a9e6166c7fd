"""Pictures of grids: the choice of them, and the measurements that they show."""

import io
import itertools
import math

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from medjax.lab import plots
from medjax.lab.settings.field import plain
from medjax.lab.sweeps import grid, pictures

STEPS = np.array([0, 5, 10])
METRICS = ("grad_norm", "median_mean_gap", "test_accuracy", "train_loss", "validation_accuracy")
NOISY = {"rule": ["sign", "noisy_sign"], "b": [0, 0.01, 0.1], "lr": [0.01, 0.1]}


def measured(**axes):
    """Make a grid, and measurements at random."""
    runs = grid.expand(axes)
    rng = np.random.default_rng(0)
    columns = {
        "run": np.repeat(np.arange(len(runs)), len(STEPS)),
        "step": np.tile(STEPS, len(runs)),
    }
    columns |= {name: rng.uniform(0.1, 0.9, len(columns["run"])) for name in METRICS}
    return runs, {name: np.float32(v) if name in METRICS else v for name, v in columns.items()}


def drawn(runs, columns):
    """Draw the pictures."""
    return pictures.draw(runs, columns, "a title")


def rendered(figures):
    """Render pictures, which is when warnings would come."""
    for figure in figures.values():
        figure.savefig(io.BytesIO(), format="png", dpi=30)
    return figures


@pytest.fixture(scope="module")
def noisy():
    """A grid of sign and noisy sign with three seeds, its measurements and its pictures."""
    runs, columns = measured(**NOISY, seed=[0, 1, 2])
    return runs, columns, rendered(drawn(runs, columns))


def seeds_of(runs, **settings):
    return [
        place
        for place, run in enumerate(runs)
        if all(plain(getattr(run, name)) == value for name, value in settings.items())
    ]


def values_of(columns, places, metric):
    """Return a row of values for each of the runs."""
    return np.stack([columns[metric][columns["run"] == place] for place in places]).astype(float)


def last(columns, places, metric):
    return values_of(columns, places, metric)[:, -1]


def best_of(columns, *settings):
    """Return the list of seeds with the best validation accuracy."""
    return max(settings, key=lambda places: last(columns, places, "validation_accuracy").mean())


def error_of(values):
    return values.std(axis=0, ddof=1) / math.sqrt(len(values))


def by_label(axis):
    return dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))


@pytest.mark.parametrize(
    ("axes", "names"),
    [
        ({"seed": [0, 1, 2]}, set()),
        ({"rule": ["sign", "median"]}, set()),  # with step sizes of their own
        ({"b": [0, 0.1]}, {"b"}),
        ({"b": [0.01, "adaptive:0.1"]}, set()),
        ({"lr": [0.1, 0.2]}, set()),
        ({"lr": [0.1, 0.2, 0.3], "seed": [0, 1]}, {"lr"}),
        ({"batch_size": [8, 16, 32, "full"]}, {"batch_size"}),
        (NOISY, {"b", "heatmap-lr-b"}),
        (
            {"partition": ["dirichlet"], "alpha": [0.1, 1, 10], "b": [0.1, 1]},
            {"alpha", "b", "heatmap-b-alpha"},
        ),
        # What only follows another setting: Byzantine workers, steps between measurements.
        ({"rule": ["trimmed_mean"], "workers": [10, 20, 30]}, {"workers"}),
        ({"steps": [100, 200, 400], "workers": [10, 20]}, {"steps", "heatmap-workers-steps"}),
    ],
)
def test_pictures_that_make_sense(axes, names):
    assert set(drawn(*measured(**axes))) == {"curves"} | names


@pytest.mark.slow
def test_curves_are_means_and_bands_standard_errors(noisy):
    runs, columns, figures = noisy
    figure = figures["curves"]
    settings = [
        seeds_of(runs, rule="noisy_sign", b=b, lr=lr) for b in NOISY["b"] for lr in (0.01, 0.1)
    ]
    places = best_of(columns, *settings)
    label = f"noisy_sign, δ = {runs[places[0]].lr:g}, b = {runs[places[0]].b:g}"
    assert [axis.get_ylabel() for axis in figure.axes] == list(plots.METRICS.values())
    for axis, metric in zip(figure.axes, plots.METRICS, strict=True):
        values = values_of(columns, places, metric)
        mean, error = values.mean(axis=0), error_of(values)
        line = by_label(axis)[label]
        np.testing.assert_allclose(line.get_xdata(), STEPS)
        np.testing.assert_allclose(line.get_ydata(), mean)
        (band,) = (
            b for b in axis.collections if to_hex(b.get_facecolor()[0]) == line.get_color().lower()
        )
        corners = band.get_paths()[0].vertices
        for step, low, high in zip(
            STEPS, np.maximum(mean - error, mean / 10), mean + error, strict=True
        ):
            at_step = corners[corners[:, 0] == step, 1]
            np.testing.assert_allclose((at_step.min(), at_step.max()), (low, high))
        assert axis.get_yscale() == ("linear" if metric == "test_accuracy" else "log")
    assert len(by_label(figure.axes[0])) == 2
    assert "3 seeds" in figure.get_suptitle()


def test_one_seed_has_neither_bands_nor_bars():
    figures = drawn(*measured(**NOISY))
    assert not figures["curves"].axes[0].collections
    assert all(bars[2] == () for bars in figures["b"].axes[0].containers)
    assert "seed" not in figures["b"].get_suptitle()


@pytest.mark.slow
def test_metrics_against_b_at_the_best_step_size(noisy):
    runs, columns, figures = noisy
    figure = figures["b"]
    chosen = [
        best_of(columns, *(seeds_of(runs, rule="noisy_sign", b=b, lr=lr) for lr in NOISY["lr"]))
        for b in NOISY["b"]
    ]
    for axis, metric in zip(figure.axes, ("test_accuracy", "train_loss", "grad_norm"), strict=True):
        values = np.stack([last(columns, places, metric) for places in chosen], axis=1)
        line, _, (bars,) = by_label(axis)["noisy_sign"]
        shown = ~np.isnan(line.get_xdata())
        np.testing.assert_allclose(line.get_xdata()[shown][1:], NOISY["b"][1:])
        np.testing.assert_allclose(line.get_ydata()[shown], values.mean(axis=0))
        ends = np.array([segment[:, 1] for segment in bars.get_segments() if len(segment)])
        ends = ends[~np.isnan(ends).any(axis=1)]
        np.testing.assert_allclose(np.diff(ends)[:, 0] / 2, error_of(values))
        np.testing.assert_allclose(ends.mean(axis=1), values.mean(axis=0))
    assert "the best step size δ by validation accuracy" in figure.get_suptitle()


def test_validation_accuracy_is_dashed():
    runs, columns = measured(b=[0.01, 0.1], seed=[0, 1])
    axis = drawn(runs, columns)["b"].axes[0]
    (dashed,) = (line for line in axis.get_lines() if line.get_linestyle() == "--")
    means = [last(columns, seeds_of(runs, b=b), "validation_accuracy").mean() for b in (0.01, 0.1)]
    np.testing.assert_allclose(dashed.get_ydata(), means)
    assert "dashed: validation" in axis.get_ylabel()
    del columns["validation_accuracy"]
    assert drawn(runs, columns)["b"].axes[0].get_ylabel() == "test accuracy"


def test_zero_is_left_of_a_break_in_the_log_axis():
    axis = drawn(*measured(b=[0, 0.01, 0.1]))["b"].axes[0]
    assert axis.get_xscale() == "log"
    x = axis.containers[0][0].get_xdata()
    assert math.isnan(x[1])  # no line from 0 to the axis
    (mark,) = (text for text in axis.texts if text.get_text() == "//")
    assert axis.get_xlim()[0] < x[0] < mark.get_position()[0] < x[2] == 0.01
    assert axis.get_xticks()[0] == x[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "0.01", "0.1"]


def test_zero_is_itself_on_a_linear_axis():
    axis = drawn(*measured(momentum=[0, 0.5, 0.9]))["momentum"].axes[0]
    assert axis.get_xscale() == "linear"
    assert list(axis.containers[0][0].get_xdata()) == [0, 0.5, 0.9]
    assert not axis.texts


def test_what_is_not_on_the_axis_is_a_horizontal_line():
    axes = NOISY | {"b": [0.01, 0.1, "adaptive:0.1", "theory"]}
    runs, columns = measured(**axes, seed=[0, 1])
    axis = drawn(runs, columns)["b"].axes[0]
    expected = {"sign": (None, "sign", "--")} | {
        f"noisy_sign, b = {b}": (b, "noisy_sign", ":") for b in ("adaptive:0.1", "theory")
    }
    assert set(by_label(axis)) == {"noisy_sign", *expected}
    for label, (b, rule, style) in expected.items():
        line = by_label(axis)[label]
        places = best_of(columns, *(seeds_of(runs, rule=rule, b=b, lr=lr) for lr in NOISY["lr"]))
        assert list(line.get_xdata()) == [0, 1]  # the whole width
        np.testing.assert_allclose(line.get_ydata(), last(columns, places, "test_accuracy").mean())
        assert line.get_linestyle() == style


def test_heatmap_cells_and_the_chosen_one(noisy):
    runs, columns, figures = noisy
    figure = figures["heatmap-lr-b"]
    sign, noisy, bar = figure.axes
    assert [axis.get_title(loc="left") for axis in (sign, noisy)] == ["sign", "noisy_sign"]
    assert bar.get_ylabel() == "test accuracy"
    cells = {
        (row, column): seeds_of(runs, rule="noisy_sign", lr=lr, b=b)
        for (row, lr), (column, b) in itertools.product(
            enumerate(NOISY["lr"]), enumerate(NOISY["b"])
        )
    }
    written = {text.get_position()[::-1]: text.get_text() for text in noisy.texts}
    assert set(written) == set(cells)
    for (row, column), places in cells.items():
        mean = last(columns, places, "test_accuracy").mean()
        assert noisy.images[0].get_array()[row, column] == pytest.approx(mean)
        assert written[row, column] == f"{mean:.2f}"
    assert [label.get_text() for label in noisy.get_xticklabels()] == ["0", "0.01", "0.1"]
    assert [label.get_text() for label in noisy.get_yticklabels()] == ["0.01", "0.1"]
    (outline,) = (patch for patch in noisy.patches if isinstance(patch, Rectangle))
    x, y = outline.get_xy()
    assert cells[int(y + 0.5), int(x + 0.5)] == best_of(columns, *cells.values())
    assert sign.images[0].get_array().shape == (2, 1)
    assert sign.images[0].get_clim() == noisy.images[0].get_clim()


@pytest.mark.slow
def test_nothing_is_outlined_where_nothing_is_chosen():
    figures = rendered(drawn(*measured(workers=[10, 20], steps=[100, 200])))
    assert not figures["heatmap-workers-steps"].axes[0].patches
    assert "outlined" not in figures["heatmap-workers-steps"].get_suptitle()


def test_problems_are_compared_and_not_chosen():
    runs, columns = measured(b=[0.01, 0.1], workers=[10, 20], noise=["normal", "laplace"])
    labels = set(by_label(drawn(runs, columns)["b"].axes[0]))
    assert labels == {
        f"noisy_sign, {noise} noise, n = {n}" for n in (10, 20) for noise in ("normal", "laplace")
    }


def test_of_many_lines_the_best_of_every_rule_are_shown():
    runs, columns = measured(
        rule=["mean", "noisy_mean"], workers=range(10, 20), b=[0.01, 0.1], validation=[0.1]
    )
    means = [place for place, run in enumerate(runs) if str(run.rule) == "mean"]
    rows = np.isin(columns["run"], means)
    columns["validation_accuracy"][rows] -= 1  # the worst of all
    figures = drawn(runs, columns)
    best = sorted(means, key=lambda p: -last(columns, [p], "validation_accuracy")[0])[:6]
    for name in ("curves", "b"):
        labels = list(by_label(figures[name].axes[0]))
        assert len(labels) == 12
        expected = {f"mean, n = {runs[place].workers}" for place in best}
        assert {
            label.partition(", δ")[0] for label in labels if label.startswith("mean")
        } == expected
        assert "12 of 20" in figures[name].get_suptitle()


@pytest.mark.slow
@pytest.mark.parametrize(("bad", "seeds"), [(np.nan, 1), (np.inf, 3)])
def test_divergence(bad, seeds):
    runs, columns = measured(**NOISY | {"lr": [0.01, 0.1, 1.0]}, seed=range(seeds))
    diverged = seeds_of(runs, lr=1.0)[:: max(1, seeds - 1)]  # not all of the seeds
    rows = np.isin(columns["run"], diverged) & (columns["step"] > 0)
    for name in ("train_loss", "grad_norm", "median_mean_gap"):
        columns[name][rows] = bad
    figures = rendered(drawn(runs, columns))
    assert set(figures) == {"curves", "lr", "b", "heatmap-lr-b"}
    loss = figures["lr"].axes[1]
    (cross, _) = (line for line in loss.get_lines() if line.get_marker() == "x")
    assert cross.get_xdata() == [1.0]
    assert "diverged" in figures["lr"].get_suptitle()


@pytest.mark.slow
def test_everything_diverged_or_nothing_happened():
    runs, columns = measured(**NOISY, seed=[0, 1])
    for value in (np.nan, np.inf, 0.0):
        for name in METRICS:
            columns[name][:] = value
        assert "heatmap-lr-b" in rendered(drawn(runs, columns))


def test_axis_ends_where_a_loss_is_far_beyond_its_start():
    runs, columns = measured(lr=[0.01, 0.1, 1.0])
    columns["train_loss"][columns["step"] == 0] = 2
    columns["train_loss"][-1] = 1e30
    assert drawn(runs, columns)["lr"].axes[1].get_ylim()[1] == pytest.approx(200)
