"""Differential privacy of DP-FedAvg: ε from the noise, the steps and the cohorts."""

import math
from typing import Any, NamedTuple

from medjax._engine import checks
from medjax.lab.settings.config import Settings


def epsilon(
    noise_multiplier: float,
    num_steps: int,
    num_workers: int,
    participants: int | None,
    delta: float,
) -> float:
    """Return ε of the (ε, δ)-differential privacy of a run of `medjax.algorithms.dp_fedavg`.

    The guarantee is that of a worker, all of whose data count as one record, against whoever sees
    the model after every step; the server is trusted. Two sets of workers are neighbours if one
    worker's data are replaced by any others ("replace one"): n and m are public. A worker's move is
    clipped to c, so that the sum over the cohort changes by 2c at most, and the noise N(0, (σc)²)
    on it is σ/2 times that sensitivity. Definitions that add or remove a worker take c for the
    sensitivity; their ε is smaller, and they don't fit cohorts of a fixed size.

    With all workers, a step has the Rényi differential privacy of the normal mechanism, α (2/σ)²/2
    at order α. A cohort of m of n workers, drawn uniformly without replacement in each step, has
    that of theorem 27 of Wang, Balle and Kasiviswanathan (2019), "Subsampled Rényi differential
    privacy and analytical moments accountant". It also has that of all workers, as Rényi
    divergences are quasi-convex, which is the smaller one where m is near n. The package
    `dp-accounting` adds up the steps and converts the sum to ε; the smaller of the two is
    returned. It is an upper bound: the true ε may be smaller.

    It holds of honest workers alone who take part as drawn. It doesn't where attackers know what
    the others send (their vectors are then functions of one worker's data too), nor for workers who
    are always in the cohort.

    Args:
        noise_multiplier: σ ≥ 0.
        num_steps: the number of steps whose models are seen.
        num_workers: n.
        participants: m; None for all.
        delta: δ, above 0 and below 1; commonly less than 1/n.

    Returns:
        ε; ∞ without noise, and 0 for no steps.

    Raises:
        ImportError: if `dp-accounting` isn't installed.
        TypeError: if a number is of the wrong kind.
        ValueError: if one is out of range.
    """
    checks.real("noise_multiplier", noise_multiplier, minimum=0.0)
    steps = checks.integer("num_steps", num_steps, minimum=0)
    n = checks.integer("num_workers", num_workers, minimum=1)
    m = n if participants is None else checks.integer("participants", participants, minimum=1)
    if m > n:
        raise ValueError(f"participants must be at most the {n} workers, got {m}")
    checks.real("delta", delta, minimum=0.0, exclusive=True)
    if delta >= 1:
        raise ValueError(f"delta must be below 1, got {delta}")
    accounting = _package()
    if steps == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    # More noise is no less private; of a lot more the accountant's series have no logarithm.
    step: Any = accounting.GaussianDpEvent(min(noise_multiplier, 1e6) / 2)
    found = []
    for event in (step, accounting.SampledWithoutReplacementDpEvent(n, m, step)):
        relation = accounting.NeighboringRelation.REPLACE_ONE
        accountant = accounting.rdp.RdpAccountant(neighboring_relation=relation)
        accountant.compose(event, steps)
        found.append(float(accountant.get_epsilon(delta)))
    return min(found)


class Privacy(NamedTuple):
    """The differential privacy of a run's workers.

    Attributes:
        delta: δ.
        epsilon: ε; None where there is none or it isn't known.
        reason: in words, why.
    """

    delta: float
    epsilon: float | None
    reason: str = ""


def of_run(config: Settings, num_steps: int) -> Privacy | None:
    """Return the privacy of a run after some steps; None of an algorithm that isn't private.

    Args:
        config: its settings.
        num_steps: the number of steps.
    """
    delta, part = config.delta, config.algorithm
    if delta is None or part is None:
        return None
    if config.attack is not None:
        return Privacy(delta, None, "attackers know what the others send")
    if config.compress is not None:
        return Privacy(delta, None, "what is decoded of a compressed move may be longer than c")
    noise = float(part.settings["noise_multiplier"])
    try:
        found = epsilon(noise, num_steps, config.workers, config.participation, delta)
    except ImportError as error:
        return Privacy(delta, None, str(error))
    return Privacy(delta, found) if found < math.inf else Privacy(delta, None, "no noise")


def _package() -> Any:
    """Import `dp-accounting`, which few runs need.

    Raises:
        ImportError: if it isn't installed.
    """
    try:
        import dp_accounting
        import dp_accounting.rdp
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("dp_accounting"):
            raise
        raise ImportError(
            'epsilon needs the package dp-accounting: pip install "medjax[privacy]"'
        ) from None
    return dp_accounting
