"""How `NAME:setting=value` is read: by what the factory says of its settings."""

import argparse

import jax
import jax.numpy as jnp
import pytest

import medjax
from medjax.attacks import ATTACKS, Attack
from medjax.compressors import COMPRESSORS
from medjax.lab.settings import own, parts
from medjax.lab.settings.rules import RULE_TABLE
from medjax.lab.task import protocol
from medjax.mixing import MIXINGS
from medjax.servers import SERVERS

TABLES = {
    "rule": RULE_TABLE,
    "mixing": MIXINGS,
    "attack": ATTACKS,
    "compressor": COMPRESSORS,
    "server": SERVERS,
}
KNOWN = {"num_byzantine": 1, "num_workers": 5, "num_classes": 10, "learning_rate": 0.1}
KNOWN |= {"rule": medjax.rules.median(), "server_gradient": lambda params: params}


def texts(value):
    """Every name, with each of its settings at this value, and 1 for those that it must have."""
    for kind, table in TABLES.items():
        for name, factory in table.items():
            settings = parts.settings_of(kind, factory)
            for key in settings:
                given = {k: 1 for k, s in settings.items() if s.default is s.empty} | {key: value}
                own = ",".join(f"{k}={v}" for k, v in given.items())
                yield pytest.param(kind, f"{name}:{own}", id=f"{name}:{key}={value}")


def use(kind, built):
    """Trace what has been built, as `setup.prepare` does."""
    if kind == "server":
        x = jnp.zeros(2)
        jax.eval_shape(lambda: built.update(x, built.init(x), x))
    elif kind != "attack" or isinstance(built, Attack):
        stage = {
            "rule": medjax.aggregate,
            "mixing": medjax.mix,
            "compressor": medjax.compress,
            "attack": lambda attack, key: medjax.attack(attack, 1, key),
        }[kind]
        protocol.check(stage(built, 0), 5)
    else:
        built.poison(jnp.zeros((1, 1, 8, 8, 1)), jnp.zeros((1, 1), int), jnp.ones((1, 1), bool))


@pytest.mark.parametrize(("kind", "text"), [*texts("99999999999"), *texts("3.5e38")])
def test_large_number_is_taken_or_refused_in_one_line(kind, text):
    try:
        use(kind, parts.one_of(kind, TABLES[kind])(text).build(**KNOWN))
    except (ValueError, argparse.ArgumentTypeError) as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("written", "setting", "value"),
    [
        ("3", "max_tau", 3.0),
        ("3000000000", "max_tau", 3e9),
        ("3", "num_points", 3),
        ("none", "max_tau", None),
    ],
)
def test_value_is_of_the_settings_type(written, setting, value):
    def factory(max_tau: float | None = None, num_points: int = 8) -> dict:
        return {"max_tau": max_tau, "num_points": num_points}

    got = parts.one_of("attack", {"f": factory})(f"f:{setting}={written}").build()[setting]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "where", "what", "rest"),
    [
        (r"C:\x y\mine.py:f", r"C:\x y\mine.py", "f", None),
        (r"..\mine.py:f:tau=1/2", r"..\mine.py", "f", "tau=1/2"),
        (r"\\host\share\mine.py:a.b", r"\\host\share\mine.py", "a.b", None),
        ("/a:b/mine.py:f:x=y.py:z", "/a:b/mine.py", "f", "x=y.py:z"),
        ("package.module:f:", "package.module", "f", ""),
    ],
)
def test_paths_of_every_system(text, where, what, rest):
    assert own.WRITTEN.fullmatch(text).groups() == (where, what, rest)
    assert parts.links(f"ipm+{text}") == ["ipm", text]
