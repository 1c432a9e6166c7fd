"""Settings in words, and in names of files on every system."""

import pytest

from medjax.lab.settings import wording


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("noisy_sign", "noisy_sign"),
        ("krum:num_neighbors=3", "krum-num_neighbors=3"),
        ('a<b>c:"d"|e?*', "a-b-c-d-e"),  # none of them may be in a name on Windows
        ("mean...", "mean"),  # nor may a point be at its end
        ("a\\b/c", "a-b-c"),
        ("con", "_con"),  # nor may it be a device's, whatever follows
        ("AUX.module:rule", "_AUX.module-rule"),
        ("lpt1", "_lpt1"),
        ("conical", "conical"),
        ("./mine.py:rule", "mine.py-rule"),
        ("/home/a b/mine.py:rule", "home-a-mine.py-rule"),
        ("C:\\studies\\mine.py:rule:x=1/2", "mine.py-rule-x=1-2"),
        ("noisy_./mine.py:rule", "noisy_mine.py-rule"),
        ("fednova:local_steps=" + "2/" * 200, "fednova-local_steps=" + "2-" * 29 + "2"),
        ("ξ" * 200, "ξ" * 40),
        ("数" * 200, "数" * 26),  # three bytes each
    ],
)
def test_name_of_a_file(value, name):
    assert wording.for_files(value) == name
    assert len(name.encode()) <= 80


@pytest.mark.parametrize(
    ("value", "name"),
    [("mnist5k", "mnist5k"), ("idx:/data/MNIST", "MNIST"), (r"idx:D:\data\MNIST", "MNIST")],
)
def test_name_of_a_data_set(value, name):
    assert wording.dataset(value) == name


@pytest.mark.parametrize(
    ("rate", "told"), [(1234.56, "1234.6 steps/s"), (1.0, "1.0 steps/s"), (0.8, "1.25 s/step")]
)
def test_pace(rate, told):
    assert wording.pace(rate) == told
