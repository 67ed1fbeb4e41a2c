"""A value of another type than its field's is converted without loss, or refused."""

import logging

import pytest

from relvlm.config.load import load_config
from relvlm.config.ranges import PATH
from relvlm.config.scalars import read
from relvlm.errors import UserError


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        (int, 100_000.0, 100_000),
        (int, "1e5", 100_000),
        (int, "12", 12),
        (int, "9007199254740993", 2**53 + 1),
        (float, 3, 3.0),
        (float, "1e-06", 1e-6),
        (float, "3", 3.0),
        (float, ".5", 0.5),
        (str, "1e5", "1e5"),
    ],
)
def test_a_number_is_converted_where_nothing_is_lost(kind, value, found):
    assert read(kind, None, value) == found and type(read(kind, None, value)) is kind


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, 1.5),
        (int, True),
        (int, float("nan")),
        (int, float("inf")),
        (int, "1.5"),
        (int, "1_0"),
        (int, " 1"),
        (float, False),
        (float, "nan"),
        (float, "inf"),
        (float, "1_0.0"),
        (float, 2**53 + 1),
        (float, 10**400),
        (float, None),
        (str, 3),
        (bool, 1),
    ],
)
def test_what_would_lose_something_is_refused(kind, value):
    with pytest.raises(UserError, match=f"^expected {kind.__name__}, found "):
        read(kind, None, value)


def test_a_path_becomes_what_a_shell_makes_of_it_and_is_shown(monkeypatch, caplog):
    monkeypatch.setenv("HOME", "/home/ada")
    with caplog.at_level(logging.INFO):
        assert read(str, PATH, "~/runs") == "/home/ada/runs"
    assert "~/runs is /home/ada/runs" in caplog.text


def test_every_path_of_a_config_is_expanded(file, monkeypatch):
    monkeypatch.setenv("BIG", "/big")
    names = ["out=$BIG/o", "data.vocab=$BIG/v", "data.relations=$BIG/r", "data.captions=[{path: $BIG/c}]"]
    config = load_config(file, [*names, "init={vision: $BIG/i, text: random}"])
    found = [config.out, config.data.vocab, config.data.relations, config.data.captions[0].path, config.init.vision]
    assert found == ["/big/o", "/big/v", "/big/r", "/big/c", "/big/i"]


def test_a_variable_that_is_not_set_names_the_field(refusal, monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    assert refusal("data.captions=[{path: $NOWHERE/x}]").startswith("data.captions[0].path: '$NOWHERE/x': the env")
