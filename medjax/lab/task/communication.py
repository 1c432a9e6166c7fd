"""Communication of a step in bits, up to the server and down from it."""

from typing import Any

import numpy as np

from medjax import algorithms, compressors
from medjax.compressors import Bits
from medjax.lab.settings import rules
from medjax.lab.settings.values import Adaptive
from medjax.lab.task.optimizer import compresses, draws_signs
from medjax.lab.task.setup import Task
from medjax.workers import Algorithm


def per_step(task: Task, b: Any) -> Bits:
    """Count the bits of all who take part in a step.

    A vote is one bit for each coordinate where it can't be 0, else two, the log₂ 3 of three symbols
    rounded up. (Of finite gradients: a NaN abstains.) A worker's can't be 0 with `--zero plus` or
    `random`, nor if the sign is drawn with noise of b > 0 that isn't adaptive, which is 0 where all
    gradients are; nor the server's with `--tie random`, or if it has an odd number of such votes.
    With a mixing the workers send vectors, of which the server takes the signs. An algorithm says
    itself what it sends: see `medjax.algorithms.communication`. Where that is a vector each way,
    and the rule is a vote, it is votes.

    Args:
        task: the task.
        b: the noise of a run, or of several; None without.

    Returns:
        Numbers, or an array of them for each b.
    """
    config, protocol, n = task.config, task.protocol, task.protocol.num_workers
    algorithm = task.algorithm
    if algorithm is not None and (algorithm.bits is not None or not rules.is_vote(config.rule)):
        return _of_algorithm(task, algorithm)
    if not rules.is_vote(config.rule):
        return compressors.communication(task.like, n, up=protocol.compressor)
    drawn = b is not None and draws_signs(protocol) and not isinstance(config.b, Adaptive)
    drawn = drawn and algorithm is None
    never_0: Any = config.zero != "zero" or (drawn and np.asarray(b) > 0)
    one_by_one = config.mix is None
    decided: Any = config.tie == "random" or (one_by_one and n % 2 == 1 and never_0)
    up = n * task.num_params * (2 - never_0)
    if not one_by_one:
        up = compressors.communication(task.like, n).up
    return Bits(up, n * task.num_params * (2 - decided))


def _of_algorithm(task: Task, algorithm: Algorithm) -> Bits:
    """Count an algorithm's bits; a compressor that isn't its own is one of whole messages."""
    protocol, n = task.protocol, task.protocol.num_workers
    bits = algorithms.communication(algorithm, task.like, n)
    if protocol.compressor is None or compresses(task.config):
        return bits
    message = algorithm.like(task.like)
    return bits._replace(up=compressors.communication(message, n, up=protocol.compressor).up)
