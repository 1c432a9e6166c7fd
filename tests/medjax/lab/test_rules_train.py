"""Every rule as a run builds it from its settings: it trains."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax.lab.data import load
from medjax.lab.settings.config import configure
from medjax.lab.settings.rules import RULE_TABLE
from medjax.lab.task import interpret
from medjax.lab.task.optimizer import build_optimizer
from medjax.lab.task.protocol import build_protocol, with_server_gradient
from medjax.rules import ServerGradient

# What has no default. The thresholds are those of vectors that are about as long as 1.
REQUIRED = {
    "centered_clipping": ":tau=1",
    "centered_clipping_from_last": ":tau=1",
    "byzantine_sgd": ":gradient_bound=1,product_threshold=100,sum_threshold=100",
}
# One of each family: to perturb the gradients is a stage of its own.
NOISY = ("noisy_mean", "noisy_sign", "noisy_median", "noisy_krum", "noisy_byzantine_sgd")
RULES = [*RULE_TABLE, *NOISY]


def algorithm(rule: str, server_gradient: ServerGradient) -> optax.GradientTransformation:
    """Build a run's algorithm from its settings."""
    given = rule + REQUIRED.get(rule.removeprefix("noisy_"), "")
    lr = 0.01 if rule.removeprefix("noisy_") == "sign" else 0.5
    config = configure(dataset="digits", model="logistic", rule=given, lr=lr)
    values = interpret.hyperparameters(config, 650)
    protocol = build_protocol(config)
    if "server_gradient" in config.rule.parameters:
        protocol = with_server_gradient(protocol, config, server_gradient)
    return build_optimizer(
        protocol,
        interpret.server(config, values.lr, values.momentum),
        interpret.noise_scale(config, values.b),
        interpret.noise_distribution(config),
        jax.random.key(0),
    )


@pytest.mark.slow
def test_every_rule_trains():
    # iid, where the median is close to the mean: every rule must learn. All in one program, which
    # is compiled in a fraction of the time; test_sweep_names.py has each name in a sweep.
    data = load("digits")
    order = np.random.default_rng(0).permutation(1400).reshape(10, 140)
    x, y = jnp.asarray(data.train_x.reshape(-1, 64)[order]), jnp.asarray(data.train_y[order])
    start = {"kernel": jnp.zeros((64, 10)), "bias": jnp.zeros(10)}

    def loss(w, x, y):
        logits = x @ w["kernel"] + w["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    algorithms = {
        rule: algorithm(rule, lambda w: jax.grad(loss)(w, x[0, :100], y[0, :100])) for rule in RULES
    }

    def step(_, carry):
        every, states = carry
        stacked = jax.tree.map(lambda *w: jnp.stack(w), *(every[rule] for rule in algorithms))
        of_workers = jax.vmap(jax.grad(loss), (None, 0, 0))
        gradients = jax.vmap(of_workers, (0, None, None))(stacked, x, y)
        for k, (rule, tx) in enumerate(algorithms.items()):
            own = jax.tree.map(lambda g, k=k: g[k], gradients)
            updates, states[rule] = tx.update(own, states[rule], every[rule])
            every[rule] = optax.apply_updates(every[rule], updates)
        return every, states

    every = dict.fromkeys(algorithms, start)
    states = {rule: tx.init(start) for rule, tx in algorithms.items()}
    trained, _ = jax.jit(lambda carry: jax.lax.fori_loop(0, 60, step, carry))((every, states))

    images = data.test_x.reshape(-1, 64)
    final = {
        rule: np.mean((images @ w["kernel"] + w["bias"]).argmax(axis=1) == data.test_y)
        for rule, w in jax.tree.map(np.asarray, trained).items()
    }
    assert {rule: accuracy for rule, accuracy in final.items() if not accuracy > 0.7} == {}
