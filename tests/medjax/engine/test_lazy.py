"""Lazy updates: streamed sums against stacked ones, stages, and whole chains."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from medjax import aggregate, noise, noisy_sign, perturb, rules
from medjax._engine.chunks import Chunk
from medjax._engine.kernels.sums import Row, Worker
from medjax._engine.lazy import LazyUpdates, as_lazy
from medjax._engine.streaming import apply_optimizer

pytestmark = pytest.mark.optimized

# Additive rules of n workers, and coordinate-wise ones.
ADDITIVE: dict[str, Callable[[int], rules.Rule]] = {
    "mean": lambda n: rules.mean(),
    "mean(weights)": lambda n: rules.mean(1 + np.arange(n) % 3),
    "vote": lambda n: rules.majority_vote(),
    "vote(plus)": lambda n: rules.majority_vote(zero="plus"),
    "vote(random)": lambda n: rules.majority_vote(zero="random", tie="random"),
}
COORDINATE_WISE: dict[str, Callable[[int], rules.Rule]] = {
    "median": lambda n: rules.median(),
    "trimmed_mean": lambda n: rules.trimmed_mean(n // 3),
}
BEFORE: dict[str, list[optax.GradientTransformation]] = {
    "nothing": [],
    "perturb": [perturb(0.5, noise.laplace(), key=1)],
    "noisy_sign": [noisy_sign(0.5, noise.laplace(), key=1)],
    "both": [perturb(0.5, noise.uniform(), key=1), noisy_sign(0.5, noise.uniform(), key=2)],
}
# n and the size of a chunk: 1, even and odd, dividing n and not, all.
CUTS = [(1, 1), (5, 2), (8, 4), (13, 13)]


def gradients(n: int) -> dict[str, Any]:
    """Leaves of several shapes and precisions, with zeros and ties."""
    rng = np.random.default_rng(n)
    return {
        "w": rng.normal(size=(n, 3, 2)).astype(np.float32),
        "b": [rng.integers(-1, 2, (n, 5)).astype(jnp.bfloat16), np.zeros((n, 0), np.float32)],
        "c": rng.integers(-1, 2, n).astype(np.float32),
    }


def lazy(stacked: Any, chunk_size: int) -> LazyUpdates:
    """Updates that are sliced when they are asked for, in chunks of the given size only."""
    n = len(jax.tree.leaves(stacked)[0])

    def compute(inputs: Any, first: int | jax.Array, count: int) -> Any:
        assert count in (chunk_size, n % chunk_size, n)
        return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, first, count), inputs)

    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), stacked)
    return LazyUpdates(like, n, Chunk(chunk_size, chunk_size), stacked, compute)


def as_float32(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)


def run(before: str, make: Callable[[int], rules.Rule], n: int, chunk_size: int | None) -> Any:
    """Two steps of a chain on the gradients: streamed, or stacked for None."""
    tx = optax.chain(*BEFORE[before], aggregate(make(n), key=3))

    @jax.jit
    def step(stacked: Any, state: Any) -> Any:
        if chunk_size is None:
            return tx.update(stacked, state)
        return apply_optimizer(lambda g: tx.update(g, state), lazy(stacked, chunk_size), "require")

    first, state = step(gradients(n), tx.init(None))
    second, _ = step(gradients(n), state)
    return as_float32([first, second])


unstreamed = functools.cache(functools.partial(run, chunk_size=None))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "chunk_size"), CUTS)
def test_streamed_equals_stacked(n: int, chunk_size: int):
    chosen = {name: make(n) for name, make in ADDITIVE.items() if not make(n).needs_key}

    @jax.jit
    def both(stacked: Any) -> Any:
        return {
            name: [apply_optimizer(rule, lazy(stacked, chunk_size), "require"), rule(stacked)]
            for name, rule in chosen.items()
        }

    assert len(chosen) == 4
    for name, results in both(gradients(n)).items():
        streamed, whole = as_float32(results)
        if name == "mean(weights)":  # products may be rounded before they are added, or not
            jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), streamed, whole)
        else:
            jax.tree.map(np.testing.assert_array_equal, streamed, whole)


# Drawing takes long to compile.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "rule", "n", "chunk_size"),
    [
        ("both", "vote(random)", 5, 3),
        ("noisy_sign", "mean", 8, 4),
    ],
)
def test_draws_streamed_equal_those_stacked(before: str, rule: str, n: int, chunk_size: int):
    actual = run(before, ADDITIVE[rule], n, chunk_size)
    jax.tree.map(np.testing.assert_array_equal, actual, unstreamed(before, ADDITIVE[rule], n))


@pytest.mark.slow
def test_a_mean_of_noisy_numbers_streamed_is_that_stacked_to_rounding():
    for actual, expected in zip(
        run("perturb", ADDITIVE["mean"], 13, 4),
        unstreamed("perturb", ADDITIVE["mean"], 13),
        strict=True,
    ):
        np.testing.assert_allclose(actual["w"], expected["w"], atol=1e-6)
        np.testing.assert_allclose(actual["c"], expected["c"], atol=1e-6)
        # XLA may leave out the rounding of the noisy number to bfloat16, of values up to 4.
        np.testing.assert_allclose(actual["b"][0], expected["b"][0], atol=4 * 2**-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "rule"), [("nothing", "median"), ("nothing", "trimmed_mean"), ("both", "median")]
)
def test_coordinate_wise_rules_get_the_stacked_updates(rule: str, before: str):
    tx = optax.chain(*BEFORE[before], aggregate(COORDINATE_WISE[rule](5)))
    state = tx.init(None)

    def update(g: Any) -> Any:
        return tx.update(g, state)[0]

    g = gradients(5)
    actual = jax.jit(lambda g: apply_optimizer(update, lazy(g, 2), "auto"))(g)
    jax.tree.map(np.testing.assert_array_equal, *as_float32((actual, jax.jit(update)(g))))


@pytest.mark.slow
def test_streamed_in_float64():
    built = {name: ADDITIVE[name](13) for name in ("mean", "vote")}

    @jax.jit
    def apply(x: jax.Array) -> Any:
        whole = {name: rule(x) for name, rule in built.items()}
        return whole, {
            (name, size): apply_optimizer(rule, lazy(x, size), "require")
            for name, rule in built.items()
            for size in (1, 4, 13)
        }

    with jax.enable_x64(True):
        whole, streamed = apply(np.random.default_rng(0).normal(size=(13, 7)))
        for (name, size), actual in streamed.items():
            assert actual.dtype == np.float64
            np.testing.assert_array_equal(actual, whole[name], f"{name} in chunks of {size}")


def select(row: Row, worker: Worker) -> Row:
    """Put worker i's numbers into the i-th of 5 blocks, all others being 0."""
    return [jnp.where(jnp.arange(5)[:, None] == worker.index, x, 0) for x in row]


SIZES = (1, 2, 3, 5)


@pytest.mark.slow
def test_sum_gives_each_worker_its_own_row():
    # The sum puts the rows side by side again.
    g = gradients(5)
    rows = [np.asarray(x, np.float32).reshape(5, -1) for x in jax.tree.leaves(g)]
    blocks = jax.jit(lambda g: {size: lazy(g, size).sum(select) for size in SIZES})(g)
    for size, found in blocks.items():
        for block, expected in zip(found, rows, strict=True):
            np.testing.assert_array_equal(
                np.asarray(block, np.float32), expected, f"chunks of {size}"
            )


@pytest.mark.slow
def test_a_sum_of_votes_is_decided_by_coins_where_it_is_tied():
    votes = np.random.default_rng(0).integers(-1, 2, (5, 40)).astype(np.float32)
    totals = votes.sum(axis=0)
    coins = np.where(np.arange(40) % 3 == 0, 1, -1).astype(np.float32)
    assert np.sum(totals == 0) > 3

    def count(updates: LazyUpdates) -> list[jax.Array]:
        (tied,) = updates.sum(lambda row, worker: row, votes=True)
        (decided,) = updates.sum(lambda row, worker: row, votes=True, coins=lambda: [coins])
        return [tied, decided]

    counts = jax.jit(lambda votes: {size: count(lazy(votes, size)) for size in SIZES})(votes)
    expected = np.where(totals == 0, coins, np.sign(totals))
    for size, (tied, decided) in counts.items():
        np.testing.assert_array_equal(np.sign(tied), np.sign(totals), f"chunks of {size}")
        np.testing.assert_array_equal(np.sign(decided), expected, f"chunks of {size}")


def double(row: Row, worker: Worker) -> Row:
    del worker
    return [2 * x for x in row]


def add_index(row: Row, worker: Worker) -> Row:
    return [x + worker.index.astype(x.dtype) for x in row]


def reverse(row: Row, worker: Worker) -> Row:
    """Turn the coordinates of each leaf around, and subtract 3 times the index."""
    return [x[::-1] - (3 * worker.index).astype(x.dtype) for x in row]


def by_hand(x: np.ndarray, *, in_turn: bool) -> np.ndarray:
    flat = np.asarray(x, np.float32).reshape(5, -1)
    index = np.arange(5, dtype=np.float32)[:, None]
    stages: list[Callable[[np.ndarray], np.ndarray]] = [lambda y: 2 * y]
    stages += [lambda y: y[:, ::-1] - 3 * index] if in_turn else []
    for stage in [*stages, lambda y: y + index]:
        flat = stage(flat).astype(x.dtype).astype(np.float32)
    return flat.reshape(x.shape)


@pytest.mark.slow
@pytest.mark.parametrize("in_turn", [False, True])
def test_stages_are_applied_in_order(in_turn: bool):
    @jax.jit
    def both(g: Any) -> Any:
        found = {}
        for size in (1, 2, 5):
            updates = lazy(g, size).then(double)
            updates = (updates.then_in_turn(reverse) if in_turn else updates).then(add_index)
            found[size] = updates.stacked(), updates.sum(select)
        return found

    g = gradients(5)
    for size, (actual, blocks) in both(g).items():
        name = f"chunks of {size}"
        assert jax.tree.structure(actual) == jax.tree.structure(g)
        for one, block, x in zip(jax.tree.leaves(actual), blocks, jax.tree.leaves(g), strict=True):
            assert (one.shape, one.dtype) == (x.shape, x.dtype)
            expected = by_hand(x, in_turn=in_turn)
            np.testing.assert_array_equal(np.asarray(one, np.float32), expected, name)
            # XLA may leave out the rounding to bfloat16 between two stages, but it doesn't change
            # the small integers there.
            np.testing.assert_allclose(block, expected.reshape(5, -1), rtol=2e-7, err_msg=name)


@pytest.mark.slow
def test_a_weighted_sum_takes_the_shortcut_unless_a_stage_stands_before_it():
    g = {"w": jnp.arange(8.0).reshape(4, 2)}
    short = replace(lazy(g, 2), weighted=lambda g, w: {"w": 100 * w})
    apply = functools.partial(apply_optimizer, gradients=short, streaming="require")
    np.testing.assert_allclose(short.weighted_sum(jnp.arange(4.0))["w"], [0, 100, 200, 300])
    np.testing.assert_allclose(apply(rules.mean())["w"], np.full(4, 25))
    np.testing.assert_allclose(apply(rules.mean([1, 2, 3, 4]))["w"], [10, 20, 30, 40], rtol=1e-6)
    with pytest.raises(ValueError, match="mean has 2 weights, got updates of 4 workers"):
        apply(rules.mean([1, 2]))
    for staged in (short.then(lambda row, _: row), short.then_in_turn(lambda row, _: row)):
        assert staged.weighted is None
        np.testing.assert_array_equal(apply(rules.mean(), gradients=staged)["w"], [3, 4])
    np.testing.assert_array_equal(apply(rules.majority_vote())["w"], [1, 1])
    np.testing.assert_array_equal(apply(rules.median(), streaming="auto")["w"], [3, 4])


def test_stacked_updates_are_lazy_ones_that_exist_already():
    updates = as_lazy(gradients(3))
    assert (updates.num_workers, updates.chunk) == (3, (3, 3))
    jax.tree.map(np.testing.assert_array_equal, updates.stacked(), gradients(3))
    for wrong, error in (({}, ValueError), (np.ones((2, 2), np.int32), TypeError)):
        with pytest.raises(error):
            as_lazy(wrong)
