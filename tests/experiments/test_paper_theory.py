"""The theorems' experiment: its data against densities, recursions and Markov chains."""

import io
import itertools
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scipy import integrate, stats

from experiments.paper import claims, convergence, theory
from experiments.paper.claims import Claim
from experiments.paper.options import Options
from medjax.noise import NOISES

pytestmark = pytest.mark.optimized

TOY = np.array([1.0, 2.0, 10.0])
SIGMA = TOY.std()
N = (3, 11)  # 31 takes the same way
T = (100, 300, 1000, 3000)
SIGMAS = 5  # a normal deviate beyond it has probability 6e-7


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The folder, the claims, and what was printed."""
    folder = tmp_path_factory.mktemp("paper") / "theory"
    console = Console(file=io.StringIO(), width=200, markup=False)
    options = Options(quick=True)
    few = theory.settings(options) | {"num_scales": 13}
    short = convergence.settings(options) | {"lengths": [*T]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theory, "NUM_WORKERS", N)
        patch.setattr(theory, "settings", lambda _: few)
        patch.setattr(convergence, "settings", lambda _: short)
        found = theory.run(console, folder, options)
    return folder, found, console.file.getvalue()


def rows(folder, name):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def at_least_two(p):
    p, q, r = p
    return p * q + p * r + q * r - 2 * p * q * r


def moments(u, b):
    """Gap and variance of the median of three, from its density, with normal noise."""

    def density(y):
        p, F = stats.norm.pdf(y, u, b), stats.norm.cdf(y, u, b)
        others = ((1, 2), (0, 2), (0, 1))
        return sum(p[i] * (F[j] + F[k] - 2 * F[j] * F[k]) for i, (j, k) in enumerate(others))

    def moment(order, centre):
        ends = [u.min() - 12 * b, *np.sort(u), u.max() + 12 * b]
        return sum(
            integrate.quad(lambda y: (y - centre) ** order * density(y), *pair)[0]
            for pair in itertools.pairwise(ends)
        )

    gap = moment(1, u.mean())
    return gap, moment(2, u.mean() + gap)


@pytest.mark.slow
def test_files(quick):
    folder, _, _ = quick
    pictures = ("theory_gap", "noise_cost", "convergence")
    tables = ("theory_curves", "theory_draws", "noise_cost", "convergence")
    assert {path.name for path in folder.iterdir()} == {
        *(f"{name}.{suffix}" for name in pictures for suffix in ("png", "svg")),
        *(f"{name}.parquet" for name in tables),
    }
    for name in pictures:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (folder / f"{name}.svg").read_text()


@pytest.mark.slow
def test_all_claims_hold(quick):
    _, found, _ = quick
    assert [c.claim for c in found if not c.holds] == []
    assert {c.where for c in found} == {"Theorems 3, 4", "Theorem 5", "Theorem 6"}
    for name in NOISES:
        assert sum(c.claim.startswith(f"{name} noise") for c in found) == 1
    assert {c.figure for c in found} == {"theory"}


@pytest.mark.slow
def test_curves(quick):
    curves = rows(quick[0], "theory_curves")
    assert {(r["noise"], r["n"]) for r in curves} == set(itertools.product(NOISES, N))
    normal = [r for r in curves if (r["noise"], r["n"]) == ("normal", 3)]
    assert normal[0]["b"] == pytest.approx(0.1 * SIGMA)
    assert normal[-1]["b"] == pytest.approx(1000 * SIGMA)
    for r in normal[3:8:2]:
        assert (r["gap"], r["variance"]) == pytest.approx(moments(TOY, r["b"]), rel=1e-6)
        t = np.linspace(0, 3 * r["b"], 3001)
        above = at_least_two([stats.norm.cdf(a - 13 / 3 - t, 0, r["b"]) for a in TOY])
        below = at_least_two([stats.norm.cdf(13 / 3 - t - a, 0, r["b"]) for a in TOY])
        # A grid of a fiftieth of the steps finds the maximum to a few parts in a thousand.
        assert r["asymmetry"] == pytest.approx(np.max(np.abs(above - below)), rel=1e-2)


@pytest.mark.slow
def test_slopes_and_constants_for_large_b(quick):
    for name, n in itertools.product(NOISES, N):
        own = [r for r in rows(quick[0], "theory_curves") if (r["noise"], r["n"]) == (name, n)]
        first, last = own[-2], own[-1]

        def slope(what, first=first, last=last):
            return math.log(last[what] / first[what]) / math.log(last["b"] / first["b"])

        assert slope("variance") == pytest.approx(2, abs=1e-3)
        if name == "uniform":
            # 12/b² times the variance of Beta((n + 1)/2, (n + 1)/2).
            assert last["variance"] / last["b"] ** 2 == pytest.approx(3 / (n + 2), rel=1e-5)
        if name != "uniform" or n == 3:
            assert slope("gap") == pytest.approx(-2, abs=2e-2)
        if name in ("normal", "logistic", "student_t"):
            assert slope("asymmetry") == pytest.approx(-3, abs=1e-2)
        if name == "laplace":  # the bound, attained: the density has a kink
            assert slope("asymmetry") == pytest.approx(-2, abs=1e-2)


@pytest.mark.slow
def test_draws_agree_with_the_density(quick):
    draws = rows(quick[0], "theory_draws")
    assert len(draws) == len(NOISES) * len(N) * len(theory.DRAWN)
    for r in draws:
        assert 0 < r["gap_error"] < 0.01 * max(r["b"], SIGMA)
    normal = [r for r in draws if (r["noise"], r["n"]) == ("normal", 3)]
    for r in normal:
        gap, variance = moments(TOY, r["b"])
        assert abs(r["gap"] - gap) < SIGMAS * r["gap_error"]
        assert abs(r["variance"] - variance) < SIGMAS * r["variance_error"]


@pytest.mark.slow
def test_draws_agree_with_the_curves(quick):
    curves = {(r["noise"], r["n"], r["b"]): r for r in rows(quick[0], "theory_curves")}
    for r in rows(quick[0], "theory_draws"):
        exact = curves[r["noise"], r["n"], r["b"]]
        for what in ("gap", "variance"):
            assert abs(r[what] - exact[what]) < SIGMAS * r[f"{what}_error"]


@pytest.mark.slow
def test_costs(quick):
    costs = {(r["noise"], r["n"]): r for r in rows(quick[0], "noise_cost")}
    assert costs.keys() == set(itertools.product(NOISES, N))
    gap, variance = moments(TOY, costs["normal", 3]["b"])
    assert abs(gap) == pytest.approx(0.01 * SIGMA, rel=3e-3)  # b is good to a thousandth
    assert costs["normal", 3]["std"] == pytest.approx(math.sqrt(variance), rel=1e-6)
    # For large b the gap times the variance, and so the price, depends on the distribution alone:
    # (9/2) ∫ f³ times the variance of the median of three, 1 - √3/π and 23/72, ∫ f³ = 1/(2π√3) and
    # 1/6 for normal and Laplace noise. 1% isn't quite that far.
    normal = (1 - math.sqrt(3) / math.pi) / (2 * math.pi * math.sqrt(3))
    ratio = math.sqrt((23 / 72 / 6) / normal)
    actual = costs["laplace", 3]["std"] / costs["normal", 3]["std"]
    assert actual == pytest.approx(ratio, rel=0.02)


def recursion(T, d, start):
    """Theorem 6's average for one coordinate: x ← (1 - δ) x - δ (gap + noise) is linear."""
    a = (TOY - TOY.mean()) / SIGMA
    b, lr = (T * d) ** (1 / 6), (T * d) ** (-2 / 3)
    gap, variance = moments(-a, b)
    mean, spread, total = start, 0.0, 0.0
    for _ in range(T):
        total += mean**2 + spread
        mean, spread = (1 - lr) * mean - lr * gap, (1 - lr) ** 2 * spread + lr**2 * variance
    return total / T


def chain(T, d, start):
    """Theorem 5's average for one coordinate: a walk in steps of ±δ on a lattice."""
    a = (TOY - TOY.mean()) / SIGMA
    b, lr = (T * d) ** 0.25, (T * d) ** -0.5
    reach = round(8 / lr)  # about 15 standard deviations of where the walk stays
    x = start + lr * np.arange(-reach, reach + 1)
    down = at_least_two(stats.norm.cdf((x - a[:, None]) / b))
    p, total = (np.arange(len(x)) == reach).astype(float), 0.0
    for _ in range(T):
        total += p @ x**2
        p = np.append((p * down)[1:], 0) + np.append(0, (p * (1 - down))[:-1])
    assert p.sum() == pytest.approx(1, abs=1e-12)  # nothing has left the lattice
    return total / T


@pytest.mark.slow
@pytest.mark.parametrize(("theorem", "exact"), [(5, chain), (6, recursion)])
def test_averages_against_exact_expectations(quick, theorem, exact):
    averages = [r for r in rows(quick[0], "convergence") if r["theorem"] == theorem]
    assert {(r["d"], r["T"]) for r in averages} == set(itertools.product((1, 10), T))
    for r in averages:
        steps, d = r["T"], r["d"]
        start = 2 / math.sqrt(d)
        expected = d * (exact(steps, d, start) + exact(steps, d, -start)) / 2
        assert abs(r["mean"] - expected) < SIGMAS * r["error"]
        assert r["error"] < 0.06 * r["mean"]
        if theorem == 6:
            assert expected < r["bound"]
        else:
            assert math.isnan(r["bound"])


@pytest.mark.slow
def test_noiseless_runs_against_their_recursions(quick):
    middle = ((TOY - TOY.mean()) / SIGMA)[1]
    for r in rows(quick[0], "convergence"):
        x, total = np.array([2, -2]) / math.sqrt(r["d"]), 0.0
        for _ in range(r["T"]):
            total += np.mean(x**2)
            away = x - middle
            x = x - r["lr"] * (np.sign(away) if r["theorem"] == 5 else away)
        assert r["noiseless"] == pytest.approx(r["d"] * total / r["T"], rel=2e-2)


@pytest.mark.slow
def test_what_is_printed(quick):
    _, found, printed = quick
    assert "normal" in printed
    assert "3,000" in printed
    console = Console(file=io.StringIO(), width=250)
    console.print(claims.table(found))
    text = console.file.getvalue()
    assert "E[median] - mean is O(1/b)" in text  # and the brackets aren't markup
    assert text.count("yes") == len(found)
    assert claims.columns(found)["claim"] == [c.claim for c in found]


def test_claims_can_fail():
    flat = {"gap": -0.9, "variance": 2.5, "asymmetry": -1.5}
    slopes = {(name, n): flat for name in NOISES for n in (3, 11, 31)}
    assert not any(claim.holds for claim in theory.claims(slopes))

    def stuck(theorem, d, T):
        # Falls half as fast as it should, and from far above the bound.
        mean, rate = 9 * T**-0.125, d**0.75 * T**-0.25
        grown = mean * 4 if d == 10 else mean
        return convergence.Average(theorem, d, T, 1.0, 1.0, grown, 1e-3, 1.0, rate * d**0.1, 1.0)

    averages = [stuck(*x) for x in itertools.product((5, 6), (1, 10), (100, 1000, 10_000))]
    found = convergence.claims(averages)
    assert len(found) == 5
    assert [c.holds for c in found if "falls as" in c.claim] == [False, False]
    assert not found[-1].holds


def test_tables_of_claims():
    claim = Claim("theory", "it falls", "Theorem 3", "-1", "-2.00", True)
    other = Claim("theory", "it grows", "Theorem 4", "2", "2.10", False)
    assert claims.columns([claim, other]) == {
        "figure": ["theory", "theory"],
        "claim": ["it falls", "it grows"],
        "where": ["Theorem 3", "Theorem 4"],
        "paper": ["-1", "2"],
        "ours": ["-2.00", "2.10"],
        "holds": [True, False],
    }
    assert claims.columns([]) == {}
    console = Console(file=io.StringIO(), width=100)
    console.print(claims.table([claim, other]))
    lines = console.file.getvalue().splitlines()
    assert [line.split()[-1] for line in lines] == ["holds", "yes", "NO"]


def test_log_slope():
    x = np.array([10.0, 100.0, 1000.0])
    slope, error = claims.log_slope(x, 3 / x**2, 0.1 * 3 / x**2)
    assert slope == pytest.approx(-2)
    # The middle point has no say; the outer ones, with 10% each, are ln 100 apart.
    assert error == pytest.approx(0.1 * math.sqrt(2) / math.log(100))
    assert claims.log_slope(x, x)[1] == 0
