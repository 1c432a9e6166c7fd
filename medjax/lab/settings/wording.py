"""Settings in words: for titles, legends and tables."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from medjax.lab.settings.config import SETTINGS

_MOST_BYTES = 80
_RESERVED = re.compile(r"con|prn|aux|nul|(?:com|lpt)\d", re.IGNORECASE)  # devices on Windows
_TELLING_IF_NONE = ("algorithm", "b", "mix", "compress", "attack", "augment")


def telling(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings that tell runs apart: the rule, and those in which they differ."""

    def differs(name: str) -> bool:
        values = {str(config.get(name)) for config in configs}
        # b names the noisy runs well enough: other settings that some lack don't tell them apart.
        return len(values if name in _TELLING_IF_NONE else values - {"None"}) > 1

    return [name for name in _LABELS if name == "rule" or differs(name)]


def method(config: Mapping[str, Any]) -> str:
    """Return a run's algorithm and rule: krum, scaffold:local_steps=5, the same with krum."""
    rule, algorithm = config["rule"], config.get("algorithm")
    if algorithm is None or rule is None:
        return str(rule if algorithm is None else algorithm)
    return str(algorithm) if str(rule) == "mean" else f"{algorithm} with {rule}"


def labels(configs: Sequence[Mapping[str, Any]], folders: Sequence[str]) -> list[str]:
    """Return a name for each run: its rule and the settings in which the runs differ.

    Where that leaves two runs with one name, the names of the folders are added.
    """
    names_of = telling(configs)
    names = [named(config, names_of) for config in configs]
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({folder})" for name, folder in zip(names, folders, strict=True)]


def named(config: Mapping[str, Any], names: Collection[str]) -> str:
    """Return some of a run's settings in words, without those that don't apply to it."""
    return ", ".join(
        text.format(short(config[name]))
        for name, text in _LABELS.items()
        if name in names and config.get(name) is not None
    )


def short(value: object) -> str:
    """Return a setting's value as text: 1e-5, not 1e-05."""
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)


def pace(steps_per_second: float) -> str:
    """Return how fast steps are taken: 40.0 steps/s, or 1.25 s/step where each takes longer."""
    if steps_per_second < 1:
        return f"{1 / steps_per_second:.2f} s/step"
    return f"{steps_per_second:.1f} steps/s"


def for_files(value: object) -> str:
    """Return a setting's value as a part of a file's name, on every system.

    Of a file of one's own the folder is left out. A part takes at most 80 bytes: a name has 255.
    """
    text = re.sub(r"(noisy_)?\S*[/\\](?=[^/\\]+\.py:)", r"\1", str(value))
    text = re.sub(r"[^\w.+=-]+", "-", text).strip("-.")
    text = text.encode()[:_MOST_BYTES].decode(errors="ignore").rstrip("-.")
    return f"_{text}" if _RESERVED.fullmatch(text.partition(".")[0]) else text


def dataset(value: object) -> str:
    """Return the last part of a data set's name: MNIST of idx:/data/MNIST."""
    return re.split(r"[/\\]", str(value))[-1]


def describe(config: Mapping[str, Any]) -> str:
    """Return a run in a line, from its resolved settings."""
    parts = [method(config), f"n = {config['workers']}", f"δ = {short(config['lr'])}"]
    if config["b"] is not None:
        parts.append(f"b = {short(config['b'])}")
    batch = config["batch_size"]
    parts.append("full batch" if batch == "full" else f"batches of {batch}")
    return ", ".join([*parts, dataset(config["dataset"])])


_LABELS = {name: spec.label for name, spec in SETTINGS.items() if spec.label}
