"""Settings of the model, and of how long and on what it is trained."""

from dataclasses import dataclass

from medjax.lab.models.augmentations import AUGMENTATIONS
from medjax.lab.models.catalogue import MODELS
from medjax.lab.settings import cli, parts, rules
from medjax.lab.settings.field import setting
from medjax.lab.settings.parts import Part


@dataclass(frozen=True, kw_only=True)
class Training:
    """Model, steps, batches, measurements, seed."""

    model: Part = setting(
        parts.one_of("model", MODELS),
        f"{', '.join(MODELS)}, which is for text; mlp is the paper's 784-128-10",
        "NAME",
        default=parts.one_of("model", MODELS)("mlp"),
        label="{}",
    )
    steps: int = setting(cli.integer(0), "", "T", default=1000, label="{} steps")
    batch_size: int | str = setting(
        cli.integer_or("full", 1),
        "examples that each worker draws at each step, or all it has",
        "N|full",
        default="full",
        label="batch {}",
    )
    augment: Part | None = setting(
        parts.or_none(parts.one_of("augmentation", AUGMENTATIONS)),
        "what an image goes through each time that it is trained on: "
        f"{', '.join(AUGMENTATIONS)}, a random crop after padding by 4 with zeros and, of every "
        "other one, its mirror image; or none",
        "NAME",
        label="{}",
    )
    worker_chunk: int | str | None = setting(
        cli.integer_or("auto", 1),
        "for rules that need only a sum over the workers: how many workers' gradients exist at a "
        "time; fewer take less memory; the plain mean and an adaptive noise have no use for it",
        "N|auto",
        default="auto",
        default_text="auto, the fastest: about 64 MiB, or 2 GiB on a GPU or TPU",
        applies=lambda a: rules.is_additive(a.rule),
        goes_with=f"--rule {rules.additive_names()}",
    )
    eval_every: int = setting(
        cli.integer(1),
        "steps between measurements",
        "K",
        default=lambda a: max(1, a.steps // 40),
        default_text="a fortieth of the steps",
    )
    eval_examples: int | str = setting(
        cli.integer_or("all", 1),
        "how many of each worker's examples are measured, drawn by the seed: training figures, the "
        "gradient's norm and the gap are of these alone; test figures are of all test examples",
        "N|all",
        default="all",
        label="{} measured",
    )
    seed: int = setting(cli.integer(0), "", "SEED", default=0, label="seed {}", traced=True)
