"""Invalid files: grids, configurations, data."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.cases._case import Command

_DEEP = "[" * 10_000

GRIDS: tuple[tuple[str, str | bytes, str], ...] = (
    ("empty lists", "lr = []", "lr = []; valid: a number, a name, or a list of them"),
    ("a list in a list", "lr = [[0.1]]", "lr = [[0.1]]; valid"),
    ("a bool", "workers = true", "workers = True; valid"),
    ("a date", "lr = 1979-05-27", "lr = datetime.date(1979, 5, 27); valid"),
    ("a date in a list", "lr = [0.1, 1979-05-27T07:32:00Z]", "; valid: a number"),
    ("an impossible date", "lr = 1979-13-45", "isn't TOML"),
    ("a table", "[rule]\nname = 'sign'", "rule = {'name': 'sign'}; valid"),
    ("a dotted key", "rule.name = 'sign'", "rule = {'name': 'sign'}; valid"),
    ("an array of tables", "[[rule]]\nb = 1", "rule = [{'b': 1}]; valid"),
    ("a key twice", "lr = 0.1\nlr = 0.2", "isn't TOML: Cannot overwrite a value"),
    (
        "a key in two spellings",
        "batch-size = 4\nbatch_size = 8",
        "batch_size is there twice, once as 'batch_size'",
    ),
    ("inf", "lr = [0.1, inf]", "argument --lr: 'inf' is not a finite number above 0"),
    ("-inf", "lr = -inf", "argument --lr: '-inf' is not a finite number above 0"),
    ("nan", "lr = nan", "argument --lr: 'nan' is not a finite number above 0"),
    ("a small negative number", "b = -1e-5", "argument --b: '-1e-05' is not a finite number"),
    ("a number in quotes", "workers = 'ten'", "argument --workers: 'ten' is not a whole number"),
    ("a real number of workers", "workers = 10.5", "argument --workers: '10.5' is not a whole"),
    ("a number for a name", "rule = 3", "argument --rule: unknown rule '3'"),
    ("a name that isn't", "rule = ['sign', 'sing']", "unknown rule 'sing': did you mean 'sign'?"),
    ("an empty name", "rule = ''", "unknown rule ''"),
    ("a value twice", "lr = [0.1, 0.1]", "argument --lr: 0.1 is there twice"),
    ("a flag for a value", "rule = ['sign', '--yes']", "rule = ['sign', '--yes']; valid"),
    ("a folder for a value", "rule = ['sign', '--out', '/x']", "; valid: a number, a name, or"),
    ("an abbreviated flag", "rule = ['sign', '-h']", "rule = ['sign', '-h']; valid"),
    ("a NUL", 'dataset = "idx:\\u0000"', "'idx:\\x00' isn't text in UTF-8 without NUL bytes"),
    ("a newline", 'dataset = "a\\nb"', "unknown dataset 'a\\nb'"),
    ("an output folder", "out = '/tmp'", "unknown setting 'out'"),
    ("another grid", "grid = 'grid.toml'", "unknown setting 'grid'"),
    ("a flag that isn't a setting", "yes = 1", "unknown setting 'yes'"),
    ("an axis that isn't", "learning-rate = 0.1", "unknown setting 'learning-rate'"),
    ("an empty key", "'' = 1", "unknown setting ''"),
    ("an endless key", f"{'k' * 10_000} = 1", "unknown setting 'kkk"),
    ("seeds twice", "seed = 1\nseeds = 2", "--seed and --seeds both name the seeds"),
    ("seeds by name", "seeds = [1, 2]", "seeds is how many there are; a list of them is `seed`"),
    ("seeds below 1", "seeds = 0", "argument --seeds: '0' is not a whole number of at least 1"),
    ("a number of 5000 digits", f"seed = {'9' * 5000}", "grid file 'grid.toml' isn't TOML"),
    ("and in hexadecimal", f"seed = 0x{'f' * 5000}", "grid file 'grid.toml' isn't TOML"),
    ("2^31", "workers = 2147483648", "argument --workers: '2147483648' is not a whole number"),
    ("lists in lists", f"lr = {_DEEP}", "grid file 'grid.toml' isn't TOML: "),
    ("tables in tables", f"a{'.a' * 8000} = 1", "grid file 'grid.toml' isn't TOML"),
    ("too many runs", "seeds = 1000000000", "up to 1,000,000,000 runs: add --yes"),
    ("not UTF-8", b"rule = '\xff'", "grid file 'grid.toml' isn't TOML: 'utf-8' codec can't"),
    ("UTF-16", "rule = 'sign'".encode("utf-16"), "grid file 'grid.toml' isn't TOML"),
    ("a picture", b"\x89PNG\r\n\x1a\n" + bytes(64), "grid file 'grid.toml' isn't TOML"),
    ("JSON", '{"rule": "sign"}', "grid file 'grid.toml' isn't TOML"),
    ("a long one", b"#" * (2**14 + 1), "grid file 'grid.toml' has more than 16384 bytes"),
)
"""A name, the grid file, and the message."""

_RUN = {"rule": "noisy_sign", "dataset": "idx:nowhere", "steps": 5}
_CONFIG: dict[str, Any] = {"config": _RUN, "checkpoint_every": 2}
_NO_RUN = "'run' isn't the folder of a run with checkpoints"

CONFIGS: tuple[tuple[str, Any, str], ...] = (
    ("nothing", b"", "'run/config.json' can't be read"),
    ("half of it", b'{"config": {"rule"', "'run/config.json' can't be read"),
    ("not UTF-8", b"\xff", "'run/config.json' can't be read: 'utf-8' codec"),
    ("lists in lists", _DEEP.encode(), "'run/config.json' can't be read"),
    ("a list", [_CONFIG], "'run/config.json' can't be read: it holds no JSON object"),
    ("null", None, "'run/config.json' can't be read: it holds no JSON object"),
    ("a number", 3, "'run/config.json' can't be read: it holds no JSON object"),
    ("of a sweep", {"grid": "12345678"}, _NO_RUN),
    ("without checkpoints", {"config": _RUN, "checkpoint_every": None}, _NO_RUN),
    ("a list of settings", _CONFIG | {"config": [1]}, _NO_RUN),
    ("a text of sessions", _CONFIG | {"resumed": "x"}, _NO_RUN),
    ("every 0", _CONFIG | {"checkpoint_every": 0}, "--checkpoint-every: '0' is not a whole"),
    ("every -5", _CONFIG | {"checkpoint_every": -5}, "--checkpoint-every: '-5' is not a whole"),
    ("every true", _CONFIG | {"checkpoint_every": True}, "--checkpoint-every: 'True' is not a"),
    ("every 1.5", _CONFIG | {"checkpoint_every": 1.5}, "--checkpoint-every: '1.5' is not a whole"),
    ("help", _CONFIG | {"config": {"help": "x"}}, "has a setting that runs don't have, 'help'"),
    ("resume", _CONFIG | {"config": {"resume": "/"}}, "a setting that runs don't have, 'resume'"),
    ("no setting", _CONFIG | {"config": {"": 1}}, "has a setting that runs don't have, ''"),
    ("a flag for a value", _CONFIG | {"config": {"rule": "--help"}}, "unknown rule '--help'"),
    ("a folder for a rule", _CONFIG | {"config": {"rule": "/../x"}}, "unknown rule '/../x'"),
    ("a list for a rule", _CONFIG | {"config": {"rule": ["sign"]}}, "unknown rule \"['sign']\""),
    ("a table of workers", _CONFIG | {"config": {"workers": {}}}, "--workers: '{}' is not a whole"),
    ("workers NaN", b'{"config": {"workers": NaN}, "checkpoint_every": 1}', "'nan' is not a"),
    ("lr -Infinity", b'{"config": {"lr": -Infinity}, "checkpoint_every": 1}', "'-inf' is not a"),
    ("a NUL", _CONFIG | {"config": {"dataset": "idx:\0"}}, "without NUL bytes"),
    ("a lone surrogate", _CONFIG | {"config": {"dataset": "\ud800"}}, "isn't text in UTF-8"),
    ("b without noise", _CONFIG | {"config": {"rule": "sign", "b": 1}}, "--b 1.0 goes only with"),
    ("data that are gone", _CONFIG, "'nowhere': no such directory"),
)
"""A name, the configuration as bytes or JSON, and the message of a run with --resume."""

_IDX = {"images": bytes([0, 0, 8, 3, 0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 2]) + bytes(40),
        "labels": bytes([0, 0, 8, 1, 0, 0, 0, 10]) + bytes(range(10))}  # fmt: skip
_IMAGES, _LABELS = "d/train-images-idx3-ubyte", "d/train-labels-idx1-ubyte"

IDX: tuple[tuple[str, dict[str, bytes | str | None], str], ...] = (
    ("empty images", {_IMAGES: b""}, "'d/train-images-idx3-ubyte': empty file"),
    ("truncated images", {_IMAGES: _IDX["images"][:-1]}, "only 39, where the header's shape"),
    ("one image too many", {_IMAGES: _IDX["images"] + bytes(4)}, "wrong amount of data: more"),
    ("images of 2^32", {_IMAGES: b"\0\0\x08\x03" + b"\xff" * 12}, "valid: at most 4294967296 byte"),
    ("labels for images", {_IMAGES: _IDX["labels"]}, "shape (10,) of uint8; valid: images"),
    ("images for labels", {_LABELS: _IDX["images"]}, "shape (10, 2, 2) of uint8; valid: (10,)"),
    ("9 labels", {_LABELS: b"\0\0\x08\x01\0\0\0\x09" + bytes(9)}, "shape (9,) of uint8; valid"),
    ("no images", {_IMAGES: b"\0\0\x08\x03\0\0\0\0\0\0\0\x02\0\0\0\x02"}, "at least one"),
    ("a web page", {_IMAGES: b"<!doctype html>"}, "not an IDX file: begins with 3c 21 64 6f"),
    ("half a gzip", {_IMAGES: gzip.compress(_IDX["images"])[:20]}, "corrupt gzip"),
    ("a gzip in a gzip", {_IMAGES: gzip.compress(gzip.compress(_IDX["images"]))}, "not an IDX"),
    ("a bomb", {_IMAGES: gzip.compress(_IDX["images"] + bytes(2**26), 1)}, "of data: more, where"),
    ("a link to itself", {_IMAGES: "link to train-images-idx3-ubyte"}, "lacks train images"),
    ("a folder", {_IMAGES: None}, "lacks train images"),
    ("two sets", {"d/emnist-train-images-idx3-ubyte": b""}, "holds several data sets (emnist"),
    ("another label to test", {_LABELS: b"\0\0\x08\x01\0\0\0\x0a" + bytes(10)}, "label 1 does not"),
    ("real labels", {_LABELS: b"\0\0\x0d\x01\0\0\0\x0a" + bytes(40)}, "of float32; valid: (10,)"),
)
"""A name, the files in place of good ones, and the message."""

_RECORD = np.zeros(3073, np.uint8).tobytes()
_FIRST = "d/data_batch_1.bin"

CIFAR: tuple[tuple[str, dict[str, bytes | str | None], str], ...] = (
    ("empty", {_FIRST: b""}, "'d/data_batch_1.bin': 0 bytes; valid: 1 to 1000000 records"),
    ("truncated", {_FIRST: _RECORD[:-1]}, "3072 bytes; valid"),
    ("a byte too many", {_FIRST: _RECORD + b"\0"}, "3074 bytes; valid"),
    ("label 10", {_FIRST: b"\x0a" + _RECORD[1:]}, "label 10 in record 0; valid: 0 to 9"),
    ("a label missing", {_FIRST: b"\x02" + _RECORD[1:]}, "valid: 0 to k in the first"),
    ("a label to test only", {"d/test_batch.bin": b"\x03" + _RECORD[1:]}, "the test part 3"),
    ("a folder", {_FIRST: None}, "'d' lacks data_batch_1.bin"),
    ("CIFAR-100", {"d/test_batch.bin": bytes(3074)}, "3074 bytes; valid"),
    ("a folder in it", {"d/cifar-10-batches-bin/x": b""}, "lacks data_batch_1.bin"),
)
"""The same of CIFAR-10."""

TEXTS: tuple[tuple[str, bytes, str], ...] = (
    ("nothing", b"", "'t': 0 characters are too few; valid: at least 1650"),
    ("too little", b"x" * 1649, "'t': 1649 characters are too few"),
    ("not UTF-8", b"x" * 2000 + b"\xff", "'t': byte 2000 isn't UTF-8"),
    ("UTF-16", ("x" * 2000).encode("utf-16"), "'t': byte 0 isn't UTF-8"),
    ("half a character", ("ξ" * 2000).encode()[:-1], "'t': byte 3998 isn't UTF-8"),
    ("surrogates", b"x" * 2000 + b"\xed\xa0\x80", "'t': byte 2000 isn't UTF-8"),
)
"""A name, the text, and the message."""


def cases() -> Iterator[Command]:
    """Yield the mistakes of all tables."""
    for _, content, message in GRIDS:
        grid = {"grid.toml": content}
        yield Command("sweep", ("--grid", "grid.toml", "--model", "mlp"), message, grid)
    for _, content, message in CONFIGS:
        text = content if isinstance(content, bytes) else json.dumps(content)
        yield Command("run", ("--resume", "run"), message, {"run/config.json": text})
    good = {
        f"d/{part}-{kind}-ubyte": _IDX[kind[:6]]
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    }
    for _, changed, message in IDX:
        yield Command("run", ("--dataset", "idx:d"), message, good | changed)
    good = dict.fromkeys((_FIRST, *(f"d/data_batch_{k}.bin" for k in range(2, 6))), _RECORD)
    good |= {"d/test_batch.bin": _RECORD}
    for _, changed, message in CIFAR:
        yield Command("run", ("--dataset", "cifar:d"), message, good | changed)
    for _, content, message in TEXTS:
        yield Command(
            "run", ("--dataset", "text:t", "--model", "transformer"), message, {"t": content}
        )
