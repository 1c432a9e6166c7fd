"""Text: windows, the ten authors, partitions by author, refusals."""

import hashlib
import itertools

import numpy as np
import pytest

from medjax.lab.commands.run import main
from medjax.lab.commands.sweep import main as sweep
from medjax.lab.data import hold_out, load, text
from medjax.lab.settings.config import configure
from medjax.lab.sweeps.plan import _data_bytes, make_groups
from medjax.lab.task.setup import prepare
from medjax.lab.task.workers import share_out

T = text.WINDOW
FEWEST = 10 * 5 * (T + 1)


def words_of(part):
    """Return an author's words in order, without those that the ends of its windows may cut."""
    windows = text.authors()
    written = "".join(
        windows.alphabet[k] for k in windows.characters[windows.parts == part].ravel()
    )
    return written.split(" ")[:-1]


@pytest.fixture(scope="module")
def dataset():
    return load("text")


def test_windows_follow_one_another_and_the_rest_is_dropped():
    # Two windows and a half of "abc..." in the first part, one of dots in the second.
    letters = "".join(chr(97 + k % 26) for k in range(2 * (T + 1) + T // 2))
    windows = text.cut([letters, "." * (T + 1)])
    assert windows.alphabet == "." + "".join(sorted(set(letters)))
    assert windows.parts.tolist() == [0, 0, 1]
    # "." comes first in the alphabet, then a to z.
    expected = [1 + k % 26 for k in range(2 * (T + 1))] + [0] * (T + 1)
    assert windows.characters.ravel().tolist() == expected


@pytest.mark.slow
def test_authors_write_with_ten_vocabularies_as_markov_chains():
    for part in range(10):
        words = words_of(part)
        assert len(set(words)) <= 40
        followers = {}
        for word, after in itertools.pairwise(words):
            followers.setdefault(word, set()).add(after)
        # Four each; a word that was made twice has the successors of both.
        assert sum(len(after) > 4 for after in followers.values()) <= 40 - len(followers)
    vocabularies = [set(words_of(part)) for part in range(10)]
    shared = [len(a & b) for i, a in enumerate(vocabularies) for b in vocabularies[:i]]
    assert max(shared) < 6  # of about 40: those of one syllable


def test_authors_letters_differ():
    windows = text.authors()
    counts = np.array(
        [
            np.bincount(windows.characters[windows.parts == part].ravel(), minlength=26)
            for part in range(10)
        ]
    )
    assert counts.shape == (10, 26)
    shares = counts / counts.sum(axis=1, keepdims=True)
    apart = np.abs(shares[:, None] - shares).sum(axis=2) / 2  # total variation
    assert apart[np.triu_indices(10, 1)].min() > 0.25


def test_data_set_is_the_same_every_time(dataset, assert_same):
    again = load("text")
    assert_same(again, dataset)
    np.testing.assert_array_equal(again.authors, dataset.authors)
    written = text.authors().characters.astype("<i4")
    digest = hashlib.sha256(written.tobytes()).hexdigest()
    assert digest == "099c488c8b0be7b704c57fc083f960b617593f014306bdc0a9ba2f6641e6323a"
    # 40 of each author's 200 windows are held out.
    assert dataset.train_x.shape == dataset.train_y.shape == (1600, T)
    assert dataset.test_x.shape == dataset.test_y.shape == (400, T)
    assert np.bincount(dataset.authors).tolist() == [160] * 10
    assert (dataset.inputs, dataset.num_classes) == ("characters", 26)
    assert {x.dtype for x in (dataset.train_x, dataset.train_y, dataset.authors)} == {
        np.dtype("i4")
    }


def test_labels_are_the_next_characters(dataset):
    for x, y in ((dataset.train_x, dataset.train_y), (dataset.test_x, dataset.test_y)):
        np.testing.assert_array_equal(x[:, 1:], y[:, :-1])


def test_train_and_test_share_no_character_of_the_text(dataset):
    whole, data = text.authors().characters, dataset
    ours = np.concatenate(
        [
            np.concatenate([data.train_x, data.train_y[:, -1:]], axis=1),
            np.concatenate([data.test_x, data.test_y[:, -1:]], axis=1),
        ]
    )
    # Each of the windows, which follow one another without overlap, is once in one of the parts.
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], whole[np.lexsort(whole.T)], strict=True)


def book(path, characters=FEWEST + 9):
    """A file with a letter of its own in each tenth, between commas."""
    size = characters // 10
    tenths = [(chr(0x3B1 + k) + ",") * size for k in range(10)]
    body = "".join(tenth[:size] for tenth in tenths)
    path.write_text(body + "." * (characters - 10 * size), encoding="utf-8")
    return f"text:{path}"


def test_a_files_classes_are_its_tenths(tmp_path):
    data = load(book(tmp_path / "book.txt"))
    # Five windows of each tenth, one of them held out; the last nine characters are left over.
    assert data.train_x.shape == (40, T)
    assert data.test_x.shape == (10, T)
    assert data.num_classes == 11  # ten letters and the comma
    for x, author in zip(data.train_x, data.authors, strict=True):
        assert set(x.tolist()) == {0, 1 + author}


def test_a_byte_order_mark_is_no_character(tmp_path):
    (tmp_path / "a").write_text("ab" * FEWEST, encoding="utf-8")
    (tmp_path / "b").write_text("ab" * FEWEST, encoding="utf-8-sig")
    plain, marked = (text.read(tmp_path / name) for name in "ab")
    assert plain.alphabet == marked.alphabet == "ab"
    np.testing.assert_array_equal(plain.characters, marked.characters)


def test_files_that_are_no_text(tmp_path, refused):
    path = tmp_path / "x"
    refused(text.read, path, kind=FileNotFoundError, match="no such file", names=path)
    refused(text.read, tmp_path, match="this is a directory; expected a text", names=tmp_path)
    path.write_bytes(b"abc\xff" * FEWEST)
    refused(text.read, path, match=r"byte 3 isn't UTF-8 \(invalid start byte\)", names=path)
    path.write_text("é" * (FEWEST - 1))
    refused(
        text.read, path, match=r"1649 characters are too few; valid: at least 1650,", names=path
    )
    path.write_text("")
    refused(text.read, path, match="0 characters are too few", names=path)
    path.write_text("é" * FEWEST)
    assert text.read(path).alphabet == "é"


def test_validation_is_of_every_author(dataset):
    held = hold_out(dataset.groups, 0.25)
    assert np.bincount(dataset.authors[held]).tolist() == [40] * 10
    assert not hold_out(dataset.groups, 0).any()
    task = prepare(configure(dataset="text", model="transformer", validation=0.25), dataset)
    assert np.bincount(task.classes).tolist() == [120] * 10
    x, y = task.held_out["validation"]
    np.testing.assert_array_equal(x, dataset.train_x[held])
    np.testing.assert_array_equal(y, dataset.train_y[held])
    np.testing.assert_array_equal(task.train[0], dataset.train_x[~held])


@pytest.mark.parametrize(
    ("partition", "authors_of_a_worker"),
    [("by_label", {1}), ("iid", {10}), ("dirichlet", set(range(1, 11))), ("shards", {1, 2, 3})],
)
def test_partitions_are_by_author(dataset, partition, authors_of_a_worker):
    config = configure(dataset="text", model="transformer", partition=partition, workers=10)
    task = prepare(config, dataset)
    indices = share_out(task, [0, 1])
    shares = []
    for rows, sizes in zip(indices.examples, indices.sizes, strict=True):
        owned = [row[:size] for row, size in zip(rows, sizes, strict=True)]
        assert sorted(np.concatenate(owned).tolist()) == list(range(1600))
        assert {len(set(dataset.authors[own].tolist())) for own in owned} <= authors_of_a_worker
        shares.append({frozenset(own.tolist()) for own in owned})
    # Another seed is another partition, except where there is only one.
    assert (shares[0] == shares[1]) == (partition == "by_label")


def test_a_sweep_counts_the_bytes_of_its_windows(dataset):
    run = configure(dataset="text", model="transformer")
    (group,) = make_groups([run], {("text", None): dataset})
    # T characters and T labels in 32 bits, of 1600 windows for each seed, and of 400 to test on.
    assert [_data_bytes(group, seeds) for seeds in (1, 3)] == [
        (seeds * 1600 + 400) * 2 * T * 4 for seeds in (1, 3)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--dataset text",
            "--model mlp takes images, and dataset 'text' is of characters; valid: transformer",
        ),
        (
            "--dataset digits --model transformer",
            "--model transformer takes characters, and dataset 'digits' is of images; valid: mlp, "
            "logistic, cnn, resnet20",
        ),
        (
            "--dataset text --model transformer --attack label_flip",
            "attack label_flip(num_classes=26) is on images, and dataset 'text' is of characters",
        ),
        (
            "--dataset text --model transformer --attack ipm+backdoor:target=1",
            "is on images, and dataset 'text' is of characters; valid: an attack on vectors, such",
        ),
        ("--dataset text: --model transformer", "dataset 'text:' names no FILE: write text:FILE"),
        ("--dataset text:gone --model transformer", "'gone': no such file"),
        ("--dataset text:. --model transformer", "'.': this is a directory"),
    ],
)
def test_mistake_gets_one_clear_line(arguments, message, error_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (main, sweep):
        assert message in error_of(command, "--rule", "mean", *arguments.split())
        assert not list(tmp_path.iterdir()), "a mistake leaves nothing behind"
