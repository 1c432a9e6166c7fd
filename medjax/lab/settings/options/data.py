"""The workers, and who has which example."""

from medjax.lab.data import SOURCES
from medjax.lab.settings import cli
from medjax.lab.settings.options.words import Add
from medjax.partition import PARTITIONS


def add_data(add: Add) -> None:
    """The data set and its partition."""
    add("--workers", metavar="N", type=cli.integer(1), default=10, help="number (default: 10)")
    add(
        "--dataset",
        metavar="NAME",
        default="mnist5k",
        help=f"{', '.join(SOURCES)}; DIR holds four IDX files, or the six of CIFAR-10's binary "
        "version; NAME is any set of TensorFlow Datasets for image classification, as mnist or "
        "emnist/letters, or mnist@DIR, of those in a folder of one's own; FILE is any text in "
        "UTF-8, and text without one is of ten made-up authors: for --model transformer (default: "
        "mnist5k)",
    )
    add(
        "--validation",
        metavar="FRACTION",
        type=cli.number(0, below=1),
        default=0.0,
        help="how much of the training data is held out of training, the same share of every "
        "class, to choose settings by (default: none; a tenth in a sweep)",
    )
    add(
        "--partition",
        metavar="NAME",
        default="by_label",
        type=cli.one_of("partition", PARTITIONS),
        help=f"who has which example: {', '.join(PARTITIONS)}; the label of text is its "
        "author, or the tenth of the file; natural is for text, and for a set of TensorFlow "
        "Datasets that names the writers, clients or users: all of one's examples stay together "
        "(default: by_label)",
    )
    add(
        "--classes-per-worker",
        metavar="C",
        type=cli.integer(1),
        help="for by_label: each worker has examples of C classes only (default: 1)",
    )
    add(
        "--shards-per-worker",
        metavar="S",
        type=cli.integer(1),
        help="for shards: each worker has S runs of the examples sorted by label (default: 2)",
    )
    add(
        "--alpha",
        metavar="α",
        type=cli.number(0, exclusive=True),
        help="for dirichlet: small is heterogeneous (default: 0.1)",
    )
    add(
        "--similarity",
        metavar="γ",
        type=cli.number(0, most=1),
        help="for gamma_similarity: the share of the examples that is dealt at random (default: "
        "0.5)",
    )
    add(
        "--exponent",
        metavar="S",
        type=cli.number(0),
        help="for power_law: the k-th worker's number of examples goes as k to the -S (default: 1)",
    )

    add(
        "--examples-per-worker",
        metavar="N",
        type=cli.integer(1),
        help="of its examples each worker keeps N, drawn at random, and the others are nobody's "
        "(default: all)",
    )
    add(
        "--copies",
        metavar="N",
        type=cli.integer(1),
        default=1,
        help="how often the training data are dealt out, so that an example belongs to up to N "
        "workers: for more workers than there are examples (default: 1)",
    )
