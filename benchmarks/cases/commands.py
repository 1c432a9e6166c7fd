"""Invalid flags of every command."""

from collections.abc import Iterator

from benchmarks.cases._case import Command

_HUGE = "9" * 5000
_WHOLE = "is not a whole number of at least"
_FINITE = "is not a finite number"

COUNTS = (
    *("--workers", "--steps", "--seed", "--batch-size", "--worker-chunk", "--eval-every"),
    *("--local-steps", "--participation", "--byzantine", "--declared-byzantine"),
    *("--classes-per-worker", "--shards-per-worker", "--examples-per-worker", "--copies"),
)
"""Flags of `run` and `sweep` that take a whole number."""

NOT_COUNTS = ("-1", "1.5", "", "nan", "2147483648", "0x10", _HUGE)

NUMBERS = ("--lr", "--b", "--df", "--alpha", "--similarity", "--exponent", "--validation",
           "--local-lr", "--worker-momentum", "--momentum")  # fmt: skip
"""Flags that take a real number."""

NOT_NUMBERS = ("-1e-30", "-inf", "nan", "", "1e39", "1,5", "True")

ONE_BY_ONE: tuple[tuple[str, str, str], ...] = (
    ("run", "--devices 0", "'0' is not a whole number of at least 1, nor 'auto'"),
    ("run", "--devices all", "'all' is not a whole number"),
    ("run", "--mesh workers", "'workers': '' is not a whole number"),
    ("run", "--mesh workers=0", "'workers=0': '0' is not a whole number of at least 1"),
    ("run", "--mesh workers=1.5", "'workers=1.5'"),
    ("run", "--mesh =2", "unknown axis ''"),
    ("run", "--mesh workers=2,workers=2", "workers is there twice"),
    ("run", "--mesh workers=2,,", "unknown axis '': valid: workers, coordinates, grid"),
    ("run", "--mesh grid=2", "--mesh grid=2 is for sweeps; a run has workers"),
    ("run", "--mesh workers=65536,coordinates=65536", "4294967296 devices are asked for"),
    ("run", "--coordinator x --distributed", "'x' is not a host and a port"),
    ("run", "--coordinator x:0", "'x:0' is not a host and a port"),
    ("run", "--coordinator x:65536", "'x:65536' is not a host and a port"),
    ("run", "--coordinator :1", "':1' is not a host and a port"),
    ("run", "--coordinator x:² --distributed", "'x:²' is not a host and a port"),
    ("run", "--coordinator x:1", "--coordinator goes with --distributed"),
    ("run", "--processes 2", "--processes goes with --distributed"),
    ("run", "--process 1 --distributed", "--process needs --coordinator and --processes"),
    ("run", "--coordinator x:1 --processes 2 --process 2 --distributed", "--process 2 isn't one"),
    ("run", "--resume x --out y", "without --out"),
    ("run", "--resume nowhere", "'nowhere' isn't the folder of a run with checkpoints"),
    ("run", "--checkpoint-every 0", "'0' is not a whole number of at least 1"),
    ("run", "--timeout 0", "'0' is not a whole number of at least 1"),
    ("run", "--rule", "argument --rule: expected one argument"),
    ("run", "sign", "unrecognized arguments: sign"),
    ("run", "--work 5", "unrecognized arguments: --work 5"),
    ("run", "--dataset digits --workers 1443 --partition iid", "there are 1442; --copies K"),
    ("run", "--dataset idx:nowhere --workers 2147483647 --rule krum", "2147483647 workers are too"),
    ("run", "--dataset digits --copies 2147483647", "2147483647 copies of 1442 examples takes"),
    ("run", "--dataset digits --classes-per-worker 11", "11 classes per worker are more than the"),
    ("run", "--dataset digits --partition shards --shards-per-worker 145", "need 1450 examples"),
    ("run", "--dataset digits --batch-size 2147483647", "batch size 2147483647 is more than the"),
    ("run", "--dataset digits --validation 0.999999", "a validation part of 0.999999 is 143 of"),
    ("run", "--dataset digits --model transformer", "--model transformer takes characters"),
    ("run", "--dataset digits --model mlp:hidden=0", "hidden must be at least 1, got 0"),
    ("run", "--dataset digits --model mlp:hidden=1.5", "hidden must be an integer, got 1.5"),
    ("run", "--dataset text --model transformer:heads=3", "width 64 isn't a multiple of heads, 3"),
    ("run", "--dataset text --model mlp", "--model mlp takes images, and dataset 'text' is of"),
    ("run", "--model resnet", "unknown model 'resnet': did you mean 'resnet20'?"),
    ("sweep", "--devices -1", "'-1' is not a whole number"),
    ("sweep", "--mesh grid", "'grid': '' is not a whole number"),
    ("sweep", "--seeds 1e3", "'1e3' is not a whole number"),
    ("sweep", "--grid", "argument --grid: expected one argument"),
    ("sweep", "--grid a.toml --grid b.toml", "grid file 'b.toml': no such file"),
    ("sweep", "--rule sign sign", "sign is there twice"),
    ("sweep", "--resume x", "unrecognized arguments: --resume x"),
    ("sweep", "--checkpoint-every 0", "'0' is not a whole number of at least 1"),
    ("compare", "", "the following arguments are required: DIR"),
    ("compare", "nowhere", "'nowhere' doesn't hold a run"),
    ("compare", "nowhere --out x.txt", "--out x.txt: the name must end in .png, .svg or .pdf"),
    ("compare", "nowhere --out", "expected one argument"),
    ("compare", "nowhere --titel x", "unrecognized arguments: --titel x"),
    ("list", "--kind rule", "unknown kind 'rule': did you mean 'rules'?"),
    ("list", "medain", "unknown name 'medain': did you mean 'median'?"),
    ("list", "krum --kind attacks", "unknown name 'krum'"),
    ("list", "noisy_nnm", "unknown name 'nnm'"),
    ("list", "krum --kind settings", "--kind settings lists all of them: without 'krum'"),
    ("run", "--rule mean --lr 1e-60", "'1e-60' is not a finite number above 0"),
    ("list", "krum median", "unrecognized arguments: median"),
    ("paper", "", "the following arguments are required: NAME"),
    ("paper", "fig4", "unknown figure 'fig4': did you mean 'fig3'?"),
    ("paper", "fig1 --steps 5", "--steps goes only with fig2-subset, fig2, fig3 or all"),
    ("paper", "theory --dataset digits", "--dataset goes only with fig2, fig3 or all"),
    ("paper", "fig2 --steps 0", "'0' is not a whole number of at least 1"),
    ("paper", "fig2 --quick --dataset mnits", "unknown dataset 'mnits'"),
    ("paper", "fig3 --quick --dataset idx:nowhere", "'nowhere': no such directory"),
    ("robustness", "--quick yes", "unrecognized arguments: yes"),
    ("robustness", "--steps 3", "unrecognized arguments: --steps 3"),
    ("which_b", "--seeds 0", "'0' is not a whole number of at least 1"),
    ("which_b", "--steps 0", "'0' is not a whole number of at least 1"),
    ("which_b", "--seeds 1 --steps 1 --dataset digts", "unknown dataset 'digts': did you mean"),
    ("benchmarks.step", "--rules krmu", "unknown rule 'krmu': did you mean 'krum'?"),
    ("benchmarks.step", "--workers 0", "'0' is not a whole number of at least 1"),
    ("benchmarks.step", "--steps -5", "'-5' is not a whole number of at least 1"),
    ("benchmarks.step", "--batch-size full", "'full' is not a whole number of at least 1"),
    ("benchmarks.step", "--gram --rules sign", "not allowed with argument --gram"),
    ("benchmarks.step", "--rules sign --repeats 0", "'0' is not a whole number of at least 1"),
    ("benchmarks.step", "--json nowhere/x.json", "'nowhere/x.json' can't be written"),
    ("benchmarks.step", "--json .", "'.' is a folder"),
    ("benchmarks.step", "--json file/../x.json", "'file/../x.json' can't be written: Not a dir"),
    ("benchmarks.kernels", "--kernels medain", "unknown kernel 'medain'"),
    ("benchmarks.kernels", "--dims 0", "'0' is not a whole number of at least 1"),
    ("benchmarks.kernels", "--max-gigabytes -inf", "'-inf' is not a finite number above 0"),
    ("benchmarks.kernels", "--budget nan", "'nan' is not a finite number above 0"),
    ("benchmarks.scaling", "--rule mena", "unknown rule 'mena': did you mean 'smea'?"),
    ("benchmarks.scaling", "--plot x.jpg", "'x.jpg' must end in .png, .svg or .pdf"),
    ("benchmarks.scaling", "--dims 5", "'5' is not a whole number of at least"),
    ("benchmarks.scaling", "--worker-chunk auto", "'auto' is not a whole number of at least 1"),
    ("benchmarks.devices", "--devices 0", "'0' is not a whole number of at least 1"),
    ("benchmarks.sweep", "--dataset mnits", "unknown dataset 'mnits': did you mean 'mnist5k'?"),
    ("benchmarks.sweep", "--processes 0", "'0' is not a whole number of at least 1"),
    ("benchmarks.sweep", "--dataset digits --workers 2000", "2000 workers need at least as many"),
    ("benchmarks.accelerators", "--target h300", "unknown target 'h300': valid: h100, h200, or"),
    ("benchmarks.accelerators", "--target v5e", "a TPU's topology such as v5e:2x2, v5p:2x2x1"),
    ("benchmarks.accelerators", "--devices 0", "'0' is not a whole number of at least 1"),
    ("benchmarks.accelerators", "--rules nmn+krum", "unknown mixing 'nmn': did you mean 'nnm'?"),
    ("benchmarks.wire", "--devices 1", "nothing crosses between 1 devices"),
    ("benchmarks.wire", "--devices 2000000000", "between 2000000000 devices; valid: 2 to 1024"),
    ("run", "--devices 2000000000", "a CPU can be at most 1024 of them"),
    ("benchmarks.trust", "--only kill-runs", "unknown check 'kill-runs': did you mean 'kill-run'?"),
    ("benchmarks.wire", "--dimension 1e6", "'1e6' is not a whole number of at least 1"),
)
"""A command, its arguments, and the message."""

WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("run", ("--dataset", "idx:a\0b")),
    ("run", ("--rule", "krum:num_neighbors=\0")),
    ("run", ("--out", "a\0b")),
    ("run", ("--out", "\udcff")),
    ("run", ("--resume", "\ud800")),
    ("sweep", ("--grid", "\udcff.toml")),
    ("sweep", ("--dataset", "text:\udcff")),
    ("sweep", ("--out", "\0")),
    ("compare", ("\udcff",)),
    ("compare", ("x", "--title", "\udcff")),
    ("list", ("\0",)),
    ("paper", ("fig1", "--out", "\ud800")),
    ("robustness", ("--quick", "--out", "\0")),
    ("which_b", ("--dataset", "\udc80")),
    ("benchmarks.step", ("--json", "\udcff")),
    ("benchmarks.scaling", ("--plot", "\0.png")),
)
"""Words that aren't text: a shell makes the lone surrogates of bytes that aren't UTF-8."""


def cases() -> Iterator[Command]:
    """Yield the mistakes of all tables."""
    # There is no such folder: a mistake in a flag is found before the data are looked for.
    early = ("--dataset", "idx:nowhere")
    for flag in COUNTS:
        for value in NOT_COUNTS:
            yield Command("run", (*early, flag, value), f"argument {flag}: '{value}' {_WHOLE}")
    for flag in NUMBERS:
        for value in NOT_NUMBERS:
            yield Command("sweep", (*early, flag, value), f"argument {flag}: '{value}' {_FINITE}")
    for command, line, message in ONE_BY_ONE:
        yield Command(command, tuple(line.split()), message, {"file": ""})
    for command, words in WORDS:
        message = f"{words[-1]!r} isn't text in UTF-8 without NUL bytes"
        yield Command(command, words, message)
