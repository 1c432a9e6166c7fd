"""The paper's first figure against closed forms and quadrature, and the command of all figures."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from scipy import integrate, stats

from experiments.paper import fig1, fig2, fig2_subset
from experiments.paper.__main__ import main
from experiments.paper.options import Options
from medjax import theory
from medjax.lab.plots import Curves
from medjax.lab.sweeps import pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("paper") / "fig1"
    assert main(["fig1", "--out", str(path)]) == 0
    return path


def test_quadrature_against_scipy():
    # The density of the middle of three independent variables: one at y, one below, one above.
    a, b = np.array(fig1.TARGETS), 10.0

    def density(y):
        p, F = stats.norm.pdf(y, a, b), stats.norm.cdf(y, a, b)
        return sum(
            p[i] * (F[j] * (1 - F[k]) + F[k] * (1 - F[j]))
            for i, j, k in ((0, 1, 2), (1, 0, 2), (2, 0, 1))
        )

    mean = integrate.quad(lambda y: y * density(y), -100, 110, limit=500)[0]
    ours = fig1.MEAN + theory.median_gap(fig1.TARGETS, b)
    median = theory.median_quantile(fig1.TARGETS, b)
    assert ours == pytest.approx(mean, abs=1e-8)
    # The gap between it and the mean, to three digits: -0.172.
    assert ours == pytest.approx(13 / 3 - 0.172, abs=5e-4)
    assert integrate.quad(density, -100, median)[0] == pytest.approx(0.5, abs=1e-8)


@pytest.mark.slow
def test_claims(folder):
    table = pq.read_table(folder / "table.parquet").to_pydict()
    final = dict(zip(table["algorithm"], table["final_x"], strict=True))
    average = dict(zip(table["algorithm"], table["time_average"], strict=True))
    assert final["signSGD"] == pytest.approx(2, abs=0.01)
    assert final["medianSGD"] == pytest.approx(2, abs=0.01)
    assert final["SGD"] == pytest.approx(13 / 3, abs=0.01)
    assert average["Noisy medianSGD"] == pytest.approx(4.161, abs=0.15)
    # Rest where P(median > x) = 1/2, 4.173; the walk relaxes in about 8000 steps, so that the
    # average over 100,000 has a standard deviation of about 0.026.
    assert average["Noisy signSGD"] == pytest.approx(4.173, abs=0.1)


@pytest.mark.slow
def test_trajectories_are_those_of_the_closed_forms(folder):
    table = pq.read_table(folder / "trajectories.parquet").to_pydict()
    step = np.array(table["step"])
    for name, target in (("SGD", 13 / 3), ("medianSGD", 2.0)):
        expected = target + (fig1.START - target) * (1 - fig1.STEP_SIZE) ** step
        # Near the end a step is smaller than the spacing of float32 numbers there.
        np.testing.assert_allclose(table[name], expected, atol=1e-3)


@pytest.mark.slow
def test_folder_explains_itself(folder):
    assert {path.name for path in folder.iterdir()} == {
        "claims.md",
        "claims.parquet",
        "config.json",
        "table.parquet",
        "trajectories.parquet",
        "fig1.png",
        "fig1.svg",
    }
    record = json.loads((folder / "config.json").read_text())
    assert record["config"]["b"] == 10
    assert record["versions"]["jax"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fig-1"], "unknown figure 'fig-1': did you mean 'fig1'?"),
        ([], "required: NAME"),
        (["fig1", "--out", "/proc/nowhere/fig1"], "can't be written"),
        (["fig1", "--steps", "3"], "--steps goes only with fig2-subset, fig2, fig3 or all"),
        (["theory", "--dataset", "digits"], "--dataset goes only with fig2, fig3 or all"),
        (["fig2", "--steps", "0"], "--steps: '0' is not a whole number of at least 1"),
    ],
)
def test_mistakes(arguments, message, error_of):
    assert message in error_of(main, *arguments)


@pytest.mark.slow
def test_folder_of_another_run_is_kept(folder, tmp_path, error_of):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for other in (["theory"], ["fig1", "--quick"], ["fig2-subset", "--steps", "3"]):
        message = error_of(main, *other, "--out", str(folder))
        assert "already holds other results" in message
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "config.json").write_text('{"config": {"rule": "mean"}}')  # of a run
    assert "already holds other results" in error_of(main, "fig1", "--out", str(tmp_path))


@pytest.mark.slow
def test_claims_table(folder):
    claims = pq.read_table(folder / "claims.parquet").to_pydict()
    assert claims["figure"] == ["fig1"] * 5
    assert all(claims["holds"])
    assert (folder / "claims.md").read_text().count("\n") == 7


def test_noise_is_compared_at_the_same_step_size():
    def curve(loss: float) -> Curves:
        return Curves("", {k: [loss] for k in ("train_loss", "grad_norm", "test_accuracy")})

    without, with_noise, control = curve(5), curve(1), curve(3)
    noisy = {"b = 0": without, "b = 0.01": with_noise}
    same = fig2.claims({fig2.VOTE: noisy})  # where both have the same best one
    assert same[0].ours == "1 against 5"
    other = fig2.claims({fig2.VOTE: noisy | {"b = 0, δ of b = 0.01": control}})
    assert other[0].ours == "1 against 3"


@pytest.mark.slow
def test_figure_of_training_runs(tmp_path, capsys, monkeypatch):
    # The smallest network and images, and batches of one size.
    monkeypatch.setattr(fig2_subset, "BATCH_SIZES", (10,))
    common = fig2_subset.settings(Options(steps=4)) | {"dataset": "digits", "model": "logistic"}
    monkeypatch.setattr(fig2_subset, "settings", lambda _: dict(common))
    monkeypatch.setattr(pictures, "draw", lambda *_: {"curves": Figure((1, 1))})
    out = tmp_path / "fig2-subset"
    arguments = ["fig2-subset", "--quick", "--steps", "4", "--out", str(out)]
    code = main(arguments)
    assert "full-batch signSGD without noise keeps a large gradient" in capsys.readouterr().out
    claims = pq.read_table(out / "claims.parquet").to_pydict()
    assert code == (0 if all(claims["holds"]) else 1)
    assert (out / "fig2-subset.png").exists()
    assert (out / "fig2-subset.svg").exists()
    table = pq.read_table(out / "table.parquet").to_pydict()
    assert len(table["arm"]) == 7  # five of signSGD, two of medianSGD
    assert set(table["step"]) == {4}
    # Again: nothing is trained, all is there.
    assert main(arguments) == code
    assert "7 runs of them, 0 to do" in capsys.readouterr().out
