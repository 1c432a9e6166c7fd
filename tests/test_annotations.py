"""Every annotated shape and dtype of the library holds in use: checked at run time by beartype."""

import subprocess
import sys

import pytest

# In a process of its own: the checks must be in place before medjax is imported, and elsewhere
# they would stand before the errors that are for people.
SCRIPT = """
from jaxtyping import install_import_hook

with install_import_hook("medjax", "beartype.beartype"):
    import medjax

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax

jax.config.update("jax_num_cpu_devices", 2)

# Traced, which is what calls the functions: to compile them too would take minutes.
def trace(f, *args):
    jax.make_jaxpr(f)(*args)  # unlike eval_shape, it puts no shapes where arrays belong

SETTINGS = dict(
    num_byzantine=1, num_workers=7, num_classes=5, rule=medjax.rules.krum(1), learning_rate=0.1,
    gradient_bound=1.0, product_threshold=1.0, sum_threshold=1.0, max_norm=1.0, fraction=0.5,
    target=1, classes_per_worker=1, alpha=0.5, similarity=0.5, exponent=1.0,
    server_gradient=lambda params: params,
)

def build(factory):
    taken = inspect.signature(factory).parameters
    given = {k: value for k, value in SETTINGS.items() if k in taken}
    if "tau" in taken and taken["tau"].default is inspect.Parameter.empty:
        given["tau"] = 1.0
    return factory(**given)

tree = {"w": jnp.ones((7, 3, 2)), "b": jnp.ones((7, 4), jnp.bfloat16)}
array = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
for factory in medjax.rules.RULES.values():
    params = jax.tree.map(lambda x: x[0], tree)
    tx = medjax.aggregate(build(factory), 0)
    trace(tx.update, tree, tx.init(params), params)
mesh = medjax.sharding.make_mesh(workers=2)
for name in ("mean", "majority_vote", "median", "krum"):  # one of each family, and a vote
    tx = medjax.sharding.sharded(medjax.aggregate(build(medjax.rules.RULES[name])), mesh)
    trace(tx.update, tree, tx.init(None))
trace(medjax.rules.majority_vote(zero="random", tie="random"), tree, jax.random.key(0))
trace(medjax.rules.mean([1, 2, 3, 4, 5, 6, 7]), tree)
trace(lambda: medjax.rules.dnc(1, num_iterations=2, sub_dim=3)(tree, 0))
trace(lambda: medjax.rules.signguard(fraction=0.5)(tree, 0))
trace(medjax.rules.geometric_median(jnp.float32(0.1), tol=0.1), tree)
for factory in medjax.mixing.MIXINGS.values():
    stage = build(factory)
    tx = medjax.mix(stage, 0)
    trace(tx.update, tree, tx.init(None))
    trace(lambda: medjax.mixing.premixed(medjax.rules.krum(1), stage)(array, 0))

for factory in medjax.attacks.ATTACKS.values():
    attack = build(factory)
    if isinstance(attack, medjax.attacks.Attack):
        trace(lambda: attack(array, 2, 0))
        tx = medjax.attack(attack, 2, 0, byzantine="random")
        trace(tx.update, tree, tx.init(None))
tx = medjax.attack(medjax.attacks.alie(None), 1, byzantine=[3])
trace(lambda: tx.update(array, tx.init(None)))
trace(lambda: medjax.attacks.ipm(jnp.float32(2))(tree, 1))

one = jax.tree.map(lambda x: x[0], tree)
for factory in medjax.compressors.COMPRESSORS.values():
    compressor = build(factory)
    trace(compressor.compress, one, jax.random.key(0))
    compressor.bits(one)
    for tx in (medjax.compress(compressor, 0), medjax.error_feedback(compressor, 7, 0)):
        trace(tx.update, tree, tx.init(one))
trace(medjax.compressors.top_k(1).compress, jnp.asarray(array[0]))
medjax.compressors.communication(one, 7, up=medjax.compressors.sign(), down=lambda x: (x, 3))
for flat in (True, False):
    for updates in (tree, array):
        last = lambda x: jax.tree.map(lambda leaf: leaf[-1], x)
        rule = medjax.rules.FromFunction(last, flat)
        trace(lambda: medjax.mixing.premixed(rule, lambda x: np.eye(7))(updates))

for factory in medjax.servers.SERVERS.values():
    tx = build(factory)
    trace(tx.update, one, tx.init(one), one)

for factory in medjax.noise.NOISES.values():
    distribution = factory()
    trace(lambda: distribution.sample(jax.random.key(0), (3, 2), jnp.bfloat16))
    for x in (0.5, np.zeros(3)):
        trace(lambda: (distribution.cdf(x), distribution.mean_sign(x)))

labels = np.repeat(np.arange(5), 4)
for factory in medjax.partition.PARTITIONS.values():
    parts = build(factory)(labels, 5, 0)

images = np.ones((20, 3), np.float32)
data = medjax.stack_workers((images, labels.astype(np.int32)), parts)
medjax.sharding.place_workers(data, mesh)
medjax.attacks.label_flip(5)(data, 2)
pictures = medjax.stack_workers((np.ones((20, 4, 4, 1), np.float32), labels), parts)
medjax.attacks.backdoor(1)(pictures, 2)
objective = medjax.objectives.classification(lambda w, x: x @ w)
schedule = optax.linear_schedule(1.0, 0.1, 5)
draw = lambda key, shape, dtype: jax.random.normal(key, shape, dtype)

def simulate(optimizer, **settings):
    given = dict(num_steps=3, eval_every=2, batch_size=2, key=0) | settings
    given["test_data"] = (jnp.asarray(images), jnp.asarray(labels))
    trace(lambda: medjax.simulate(objective, jnp.zeros((3, 5)), data, optimizer, **given))

for optimizer in (
    medjax.mean_sgd(0.1),
    medjax.sign_sgd(schedule, tie="random", key=jax.random.key(1)),
    medjax.noisy_sign_sgd(0.1, schedule, medjax.noise.laplace(), key=jax.random.PRNGKey(1)),
    medjax.noisy_sign_sgd(0.1, 0.5, zero="random", exact=True, key=0),
    medjax.noisy_median_sgd(0.1, medjax.adaptive_scale(), key=3),
    optax.chain(
        medjax.per_worker(optax.trace(0.9), 5),
        medjax.perturb(jnp.float32(0.1), key=0),
        medjax.aggregate(medjax.rules.trimmed_mean(1)),
        optax.adam(0.1),
    ),
    optax.chain(
        medjax.worker_momentum(0.9, 5),
        medjax.error_feedback(medjax.compressors.qsgd(2), 5, 1),
        medjax.attack(medjax.attacks.mimic(), 1),
        medjax.mix(medjax.mixing.bucketing(1), 2),
        medjax.aggregate(medjax.rules.krum(1)),
        medjax.servers.adam(0.1),
    ),
    optax.chain(
        medjax.perturb(np.ones(5, np.float32), draw, key=0),
        medjax.compress(lambda vector, key: (vector, 32 * vector.size), 1),
        medjax.attack(lambda honest, byzantine, key: -byzantine, 1),
        medjax.mix(lambda vectors: jnp.eye(5)),
        medjax.aggregate(lambda vectors: vectors.mean(axis=0)),
        optax.sgd(0.1),
    ),
    medjax.noisy_sign_sgd(0.1, jnp.ones(5), draw, key=0),
    optax.chain(
        medjax.noisy_sign(medjax.adaptive_scale(), key=0),
        medjax.aggregate(medjax.rules.mean([1, 2, 3, 4, 5])),
    ),
):
    simulate(optimizer, worker_chunk=2)
simulate(medjax.median_sgd(jnp.float32(0.1)), batch_size=None)
trace(lambda: medjax.simulate(
    objective, jnp.zeros((3, 5)), data, medjax.median_sgd(0.1), num_steps=2, key=0, batch_size=2,
    local_steps=2, local_lr=jnp.float32(0.1), participants=3, always=1,
))
ring, algorithms = medjax.topologies.ring(5), medjax.algorithms
for algorithm in (
    algorithms.d_psgd(ring, 0.1, attack=medjax.attack(medjax.attacks.alie(), 1)),
    algorithms.gradient_tracking(ring, schedule, attack=medjax.attacks.dissensus(2, 0.5)),
    algorithms.choco_sgd(
        ring, 0.1, medjax.compressors.qsgd(2), consensus_step=jnp.float32(0.5), key=0
    ),
    algorithms.clipped_gossip(ring, 0.1, None, attack=medjax.attacks.dissensus(1)),
):
    trace(lambda: medjax.simulate(
        objective, jnp.zeros((3, 5)), data, algorithm, num_steps=2, key=0, batch_size=2
    ))
trace(lambda: medjax.multitask(
    objective, jnp.zeros((3, 5)), data,
    regularization=0.1, learning_rate=jnp.float32(0.1), num_steps=2, key=0, batch_size=2,
))
print("all annotations hold")
"""


@pytest.mark.slow
def test_annotations_hold():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all annotations hold\n"
