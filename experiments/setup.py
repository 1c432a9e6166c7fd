"""From a run's settings to the simulation: data, workers, model, algorithm."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

import medjax
from experiments import algorithms, models
from experiments.config import RunConfig, noise_distribution, noise_scale, partitioner
from experiments.data import load


@dataclass(frozen=True)
class Setup:
    """What is needed to run, and what there is to say about it.

    Attributes:
        simulation: the parts of the run.
        workers: each worker's training examples.
        test_data: the test images and labels.
        params: the initial parameters.
        key: the simulation's key.
        num_params: d.
        sizes: the data set's and the workers' sizes, for the record.
    """

    simulation: medjax.Simulation
    workers: medjax.WorkerData
    test_data: tuple[jax.Array, jax.Array]
    params: PyTree
    key: jax.Array
    num_params: int
    sizes: dict[str, Any]


def build(config: RunConfig) -> Setup:
    """Load the data, give it to the workers, and build the model and the algorithm.

    Raises:
        ValueError: if the settings don't fit each other or the data.
        FileNotFoundError, ImportError: if the data can't be had.
    """
    options = {
        "num_byzantine": config.declared_byzantine,
        "zero": config.zero,
        "tie": config.tie,
    }
    given = {name: value for name, value in options.items() if value is not None}
    rule = algorithms.build_rule(config.rule, given, config.workers)
    dataset = load(config.dataset)
    parts = partitioner(config)(dataset.train_y, config.workers, config.seed)
    sizes = [len(part) for part in parts]
    if config.batch_size != "full" and int(config.batch_size) > max(sizes):
        raise ValueError(
            f"batch size {config.batch_size} is more than the {max(sizes)} examples of the largest "
            "worker; valid: up to that, or full"
        )
    workers = medjax.stack_workers((dataset.train_x, dataset.train_y), parts)
    test_data = (jnp.asarray(dataset.test_x), jnp.asarray(dataset.test_y))
    # One key for each purpose.
    model_key, noise_key, simulation_key = jax.random.split(jax.random.key(config.seed), 3)
    params, apply = models.build(config.model, test_data[0], dataset.num_classes, model_key)
    optimizer = algorithms.build_optimizer(
        rule, config.lr, noise_scale(config), noise_distribution(config), noise_key
    )
    batch_size = None if config.batch_size == "full" else int(config.batch_size)
    simulation = medjax.simulation(
        medjax.objectives.classification(apply),
        optimizer,
        batch_size=batch_size,
        worker_chunk=config.worker_chunk if isinstance(config.worker_chunk, int) else None,
    )
    return Setup(
        simulation,
        workers,
        test_data,
        params,
        simulation_key,
        sum(leaf.size for leaf in jax.tree.leaves(params)),
        {
            "train_examples": len(dataset.train_y),
            "test_examples": len(dataset.test_y),
            "num_classes": dataset.num_classes,
            "image_shape": list(dataset.train_x.shape[1:]),
            "smallest_worker": min(sizes),
            "largest_worker": max(sizes),
        },
    )
