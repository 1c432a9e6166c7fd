"""Factories of the library, with each setting in turn of a wrong kind or out of range."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks.cases._case import Call
from medjax.attacks import ATTACKS, dissensus
from medjax.compressors import COMPRESSORS
from medjax.mixing import MIXINGS
from medjax.noise import NOISES
from medjax.partition import PARTITIONS
from medjax.rules import RULES, median
from medjax.servers import SERVERS
from medjax.topologies import TOPOLOGIES

TABLES: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "rules": RULES,
    "attacks": {**ATTACKS, "dissensus": dissensus},
    "mixing": MIXINGS,
    "compressors": COMPRESSORS,
    "noise": NOISES,
    "partition": PARTITIONS,
    "servers": SERVERS,
    "topologies": TOPOLOGIES,
}
"""The factories by their modules and names."""

NEEDED = {
    **dict.fromkeys(("num_byzantine", "target", "classes_per_worker", "num_workers"), 1),
    **dict.fromkeys(("num_selected", "rank", "bucket_size", "levels"), 1),
    **dict.fromkeys(("tau", "max_norm", "alpha", "exponent", "learning_rate"), 1.0),
    **dict.fromkeys(("gradient_bound", "product_threshold", "sum_threshold"), 1.0),
    **dict.fromkeys(("num_nodes", "rows", "columns"), 3),
    **dict.fromkeys(("fraction", "similarity", "probability"), 0.5),
    "seed": 0,
    "num_classes": 10,
    "rule": median(),
    "server_gradient": lambda params: params,
}
"""Values of settings without a default while another is wrong."""

NOT_INTEGERS = (-1, True, 1.5, "x", math.nan, [1], np.array([1, 2]), None)
NOT_REAL = (math.nan, math.inf, "x", True, [1.0, 2.0], 1j, None)
NOT_WORDS = ("zzz", 3, b"zero", None)

_AT_THE_CALL = ("start",)
"""Settings that can't be checked before there are updates."""


def cases() -> Iterator[Call]:
    """Yield the wrong calls of every factory."""
    for module, table in TABLES.items():
        for name, factory in table.items():
            settings = inspect.signature(factory).parameters
            needed = {k: NEEDED[k] for k, p in settings.items() if p.default is p.empty}
            for key, setting in settings.items():
                for value in () if key in _AT_THE_CALL else _wrong(str(setting.annotation)):
                    yield Call(
                        f"{module}.{name}({key}={value!r})",
                        partial(factory, **needed | {key: value}),
                        key,
                    )


def _wrong(annotation: str) -> list[Any]:
    """Return values that an annotation excludes."""
    if "float" in annotation:
        values = NOT_REAL
    elif "int" in annotation:
        values = NOT_INTEGERS
    elif "Literal" in annotation or "str" in annotation:
        values = NOT_WORDS
    else:
        values = ("x", 3)
    lists = "Sequence" in annotation
    return [
        value
        for value in values
        if not (value is None and "None" in annotation) and not (lists and isinstance(value, list))
    ]
