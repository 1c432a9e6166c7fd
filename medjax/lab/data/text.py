"""Text as windows of characters: of ten made-up authors, or of a file.

Nothing here shuffles or splits; no character is in two windows, however they are split.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from medjax.lab.data.files import existing_file, unreadable

PARTS = 10
"""The number of authors, and of parts of a file."""

WINDOW = 32
"""T, the number of characters that a model reads at once."""

_WINDOWS_PER_AUTHOR = 200
_FEWEST_WINDOWS = 5  # of a part: one of them to test on
_SEED = 0
_SYLLABLE = ("bcdfghjklmnpqrstvwxz", "aeiou")
_WORDS = 40
_SUCCESSORS = 4


class Windows(NamedTuple):
    """Text in windows, of one more character than a model reads: the last is only predicted.

    Attributes:
        characters: the characters, as their places in the alphabet.
        parts: the author of each window, or its part of a file, 0 to 9.
        alphabet: every character that occurs, in order.
    """

    characters: Int[np.ndarray, "rows T+1"]
    parts: Int[np.ndarray, " rows"]
    alphabet: str


def authors() -> Windows:
    """Make the text of ten authors, 200 windows of each, the same in every run."""
    # RandomState, unlike Generator, promises the same numbers in every version of numpy.
    rng = np.random.RandomState(_SEED)
    return cut([_write(rng, _WINDOWS_PER_AUTHOR * (WINDOW + 1)) for _ in range(PARTS)])


def _write(rng: np.random.RandomState, length: int) -> str:
    """Write a text of some length as one author, whose words are a Markov chain.

    The author likes some letters more than others, has 40 words of one to three syllables, and
    after each word one of four, all equally likely.
    """
    likes = [(list(letters), rng.dirichlet(np.ones(len(letters)))) for letters in _SYLLABLE]
    words = [
        "".join(rng.choice(x, p=p) for _ in range(rng.randint(1, 4)) for x, p in likes) + " "
        for _ in range(_WORDS)
    ]
    successors = rng.randint(_WORDS, size=(_WORDS, _SUCCESSORS))
    text, word = "", 0
    while len(text) < length:
        text += words[word]
        word = successors[word, rng.randint(_SUCCESSORS)]
    return text[:length]


def read(path: str | os.PathLike[str]) -> Windows:
    """Read a text file, and cut it into ten consecutive parts of equal length.

    Args:
        path: the file, in UTF-8.

    Returns:
        The windows of all parts.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it isn't a file of UTF-8, or has too few characters.
    """
    path, shown = existing_file(path, "a text file in UTF-8")
    try:
        text = path.read_text(encoding="utf-8-sig")  # without a byte order mark, if there is one
    except UnicodeDecodeError as err:
        raise ValueError(
            f"{shown}: byte {err.start} isn't UTF-8 ({err.reason}); expected a text file in UTF-8"
        ) from None
    except OSError as err:
        raise unreadable(shown, err) from None
    size, fewest = len(text) // PARTS, _FEWEST_WINDOWS * (WINDOW + 1)
    if size < fewest:
        raise ValueError(
            f"{shown}: {len(text)} characters are too few; valid: at least {PARTS * fewest}, "
            f"{_FEWEST_WINDOWS} windows of {WINDOW + 1} in each of {PARTS} parts"
        )
    return cut([text[k * size : (k + 1) * size] for k in range(PARTS)])


def cut(parts: Sequence[str]) -> Windows:
    """Cut texts into windows.

    Args:
        parts: the texts. The windows of one follow one another; a rest at its end is dropped.

    Returns:
        The windows of all of them.
    """
    # Code points, as numpy sorts and finds them at once.
    cuts = [np.frombuffer(text.encode("utf-32-le"), "<u4") for text in parts]
    rows = [x[: len(x) // (WINDOW + 1) * (WINDOW + 1)].reshape(-1, WINDOW + 1) for x in cuts]
    points, places = np.unique(np.concatenate(rows), return_inverse=True)
    return Windows(
        places.reshape(-1, WINDOW + 1).astype(np.int32),
        np.repeat(np.arange(len(rows), dtype=np.int32), [len(x) for x in rows]),
        "".join(map(chr, points)),
    )
