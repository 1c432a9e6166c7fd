"""The model, and how long and on what it is trained."""

from medjax.lab.models.catalogue import MODELS
from medjax.lab.settings import cli
from medjax.lab.settings.options.words import Add


def add_training(add: Add) -> None:
    """Model, steps, batches, measurements, seed."""
    add(
        "--model",
        metavar="NAME",
        default="mlp",
        type=cli.one_of("model", MODELS),
        help=f"{', '.join(MODELS)}, which is for text (default: mlp, the paper's 784-128-10)",
    )
    add("--steps", metavar="T", type=cli.integer(0), default=1000, help="(default: 1000)")
    add(
        "--batch-size",
        metavar="N|full",
        type=cli.integer_or("full", 1),
        default="full",
        help="examples that each worker draws at each step, or all it has (default: full)",
    )
    add(
        "--worker-chunk",
        metavar="N|auto",
        type=cli.integer_or("auto", 1),
        help="for rules that need only a sum over the workers: how many workers' gradients exist "
        "at a time; fewer take less memory; the plain mean and an adaptive noise have no use for "
        "it (default: auto, the fastest: about 64 MiB, or 2 GiB on a GPU or TPU)",
    )
    add(
        "--eval-every",
        metavar="K",
        type=cli.integer(1),
        help="steps between measurements (default: a fortieth of the steps)",
    )
    add("--seed", metavar="SEED", type=cli.integer(0), default=0, help="(default: 0)")
