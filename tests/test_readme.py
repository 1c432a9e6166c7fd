"""The README is short, its example runs, and its names, commands and links exist."""

import re
from pathlib import Path

import pytest

from medjax import attacks, compressors, mixing, noise, rules, servers

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CATALOGUES = {
    "noise": noise.NOISES,
    "compression": compressors.COMPRESSORS,
    "attack": attacks.ATTACKS,
    "mixing": mixing.MIXINGS,
    "rule": rules.RULES,
    "server": servers.SERVERS,
}


def test_is_short():
    assert len(README.split()) <= 800


@pytest.mark.slow
def test_example_trains(output_of):
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    loss = float(re.fullmatch(r"loss (\d\.\d+)\n", output_of(snippet))[1])
    assert loss < 1  # from ln 10 = 2.303, where the median without noise stays above 2


def test_main_job_and_tests_are_one_command_each():
    lines = README.splitlines()
    install = 'python3 -m venv .venv && .venv/bin/pip install -e ".[{}]" && .venv/bin/{}'
    assert install.format("lab", "medjax run --workers 100 --rule noisy_sign") in lines
    assert install.format("test", "python -m pytest -n auto") in lines
    assert "`python -m experiments.run --workers 100 --rule noisy_sign`" in README


@pytest.mark.parametrize("stage", CATALOGUES)
def test_table_has_every_name(stage):
    (row,) = re.findall(rf"^\| {stage}.*? \| (.*) \|$", README, re.MULTILINE)
    # centered_clipping_from_last is shown as centered_clipping.
    names = {name.partition("_from_")[0] for name in CATALOGUES[stage]}
    assert names - set(re.split("[,;] ", row)) == set()


def test_links_lead_to_files():
    targets = [x for x in re.findall(r"\]\((.*?)\)", README) if not x.startswith("https://")]
    assert len(targets) > 10
    for target in targets:
        assert (ROOT / target).exists(), target
