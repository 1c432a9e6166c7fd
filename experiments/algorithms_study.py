"""The runs of the study of algorithms: each algorithm, and what is chosen of it."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from medjax.lab.settings.config import Settings, configure

LOCAL_STEPS = 5
WORKERS = 20
_RATES = (0.03, 0.1, 0.3, 1.0)
_OF_SIGNS = (3e-4, 1e-3, 3e-3, 1e-2)
# Of variance ω ≤ √d/64 in the first layer, the largest of the network: ω is about 5.
_QUANTIZED = {"compress": "qsgd:levels=64"}
_K = f"local_steps={LOCAL_STEPS}"


class Entry(NamedTuple):
    """An algorithm of the study.

    Attributes:
        settings: its settings.
        choices: the values to choose from, by setting.
        walks: whether its workers take several steps in a round.
    """

    settings: Mapping[str, Any]
    choices: Mapping[str, Sequence[Any]]
    walks: bool = False


def _local(algorithm: str, rates: Sequence[float] = _RATES) -> Entry:
    """Return an algorithm with local steps, of which the length is chosen."""
    name, _, rest = algorithm.partition(":")
    named = ":".join((name, ",".join(filter(None, (_K, rest)))))
    return Entry({"algorithm": named}, {"local_lr": rates}, walks=True)


def _each_step(settings: Mapping[str, Any], rates: Sequence[float] = _RATES) -> Entry:
    """Return one that sends something at every step, of which the step size is chosen."""
    return Entry(settings, {"lr": rates})


_FEDAVG, _SGD = _local("fedavg"), _each_step({"rule": "mean"})

FAMILIES: Mapping[str, Mapping[str, Entry]] = {
    "local steps": {
        "FedAvg": _FEDAVG,
        "FedProx": _local("fedprox:mu=0.1"),
        "SCAFFOLD": _local("scaffold"),
        "FedDyn": _local("feddyn:alpha=0.1"),
        "FedNova": Entry(
            {"algorithm": f"fednova:local_steps={'/'.join(['2', '8'] * (WORKERS // 2))}"},
            {"local_lr": _RATES},
            walks=True,
        ),
        "Mime": _local("mime:beta=0.9"),
        "MimeLite": _local("mime_lite:beta=0.9"),
        "DiLoCo": _local("diloco", _OF_SIGNS),
    },
    "signs": {
        "signSGD": _each_step({"rule": "sign"}, _OF_SIGNS),
        "noisy signSGD": _each_step({"rule": "noisy_sign", "b": "auto"}, _OF_SIGNS),
        "Signum": _each_step({"algorithm": "signum"}, _OF_SIGNS),
        "signSGD-FV": _each_step({"algorithm": "sign_fv"}, _OF_SIGNS),
        "Distributed Lion": _each_step({"algorithm": "distributed_lion"}, _OF_SIGNS),
        "Distributed Lion, average": _each_step(
            {"algorithm": "distributed_lion:average=true"}, _OF_SIGNS
        ),
        "z-SignFedAvg": _local("z_sign_fedavg:sigma=0.05"),
    },
    "differences": {
        "SGD": _SGD,
        "STORM": _each_step({"algorithm": "storm:momentum=0.1"}),
        "EF21": _each_step({"algorithm": "ef21", "compress": "top_k:fraction=0.01"}),
        "DIANA": _each_step({"algorithm": "diana:alpha=0.15", **_QUANTIZED}),
        "MARINA": _each_step({"algorithm": "marina:probability=0.15", **_QUANTIZED}),
        "Byz-VR-MARINA": _each_step(
            {
                "algorithm": "byz_vr_marina:probability=0.15",
                "rule": "geometric_median",
                **_QUANTIZED,
            }
        ),
        "DASHA": _each_step({"algorithm": "dasha:momentum=0.1", **_QUANTIZED}),
    },
    "no server": {
        "D-PSGD, ring": _each_step({"algorithm": "d_psgd"}),
        "D-PSGD, exponential": _each_step({"algorithm": "d_psgd", "topology": "exponential"}),
        "gradient tracking, ring": _each_step({"algorithm": "gradient_tracking"}),
        "CHOCO-SGD, ring": _each_step(
            {"algorithm": "choco_sgd:consensus_step=0.1", "compress": "top_k:fraction=0.05"}
        ),
        "ClippedGossip, ring": _each_step({"algorithm": "clipped_gossip:tau=1"}),
    },
    "delays and privacy": {
        "SGD": _SGD,
        "delayed SGD": _each_step({"algorithm": "delayed_sgd:delays=3,drawn=true"}),
        "FedAvg": _FEDAVG,
        "FedBuff": _local("fedbuff:delays=3"),
        "DP-FedAvg": _local("dp_fedavg:clip=1,noise_multiplier=0.1"),
    },
}
"""The algorithms by family; some stand in two, to compare with."""


class Size(NamedTuple):
    """The size of the study.

    Attributes:
        batches: how many each worker computes a gradient of, in all.
        measurements: how many in a run.
        seeds: how many.
        choices: how many values there are to choose from.
        bits: the budget of the second comparison: sent and got by a worker, for each parameter.
        num_params: the number of parameters.
    """

    batches: int
    measurements: int
    seeds: int
    choices: int
    bits: int
    num_params: int = 1


# 64 bits are a round in which a whole model goes up and another down.
FULL = Size(500, 25, 3, len(_RATES), 50 * 64)
QUICK = Size(100, 10, 1, 1, 10 * 64)


def entries() -> dict[str, Entry]:
    """Return all algorithms by name."""
    return {name: entry for family in FAMILIES.values() for name, entry in family.items()}


def candidates(entry: Entry, size: Size, dataset: str) -> list[Settings]:
    """Return an algorithm's runs with each of the values to choose from.

    Args:
        entry: the algorithm.
        size: how much is run; with one value it is the second, which is seldom too large.
        dataset: the data set.
    """
    steps = size.batches // (LOCAL_STEPS if entry.walks else 1)
    values = [v if size.choices > 1 else (v[1],) for v in entry.choices.values()]
    common: dict[str, Any] = {
        "dataset": dataset,
        "workers": WORKERS,
        "partition": "dirichlet",
        "alpha": 0.1,
        "batch_size": 32,
        "validation": 0.1,
        "eval_examples": 32,
        "steps": steps,
        "eval_every": max(1, steps // size.measurements),
    }
    return [
        configure(**common, **entry.settings, **dict(zip(entry.choices, given, strict=True)))
        for given in itertools.product(*values)
    ]
