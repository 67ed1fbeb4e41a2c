"""Paths as a user writes them: in configs and as arguments of every command."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.paths import Parser, expand

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name, value in {"HOME": "/home/ada", "BIG": "/big", "QUOTED": "~/data", "EMPTY": "", "CIRCLE": "$BIG"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GONE", raising=False)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~", "/home/ada"),
        ("~/runs/x", "/home/ada/runs/x"),
        ("$BIG/x", "/big/x"),
        ("${BIG}x", "/bigx"),
        ("a/$BIG/$BIG", "a//big//big"),
        ("$QUOTED/x", "/home/ada/data/x"),
        ("runs/x~", "runs/x~"),
        ("./~", "./~"),
        ("a$", "a$"),
        ("price$.txt", "price$.txt"),
        ("", ""),
    ],
)
def test_a_home_and_variables_are_replaced(text, path):
    assert expand(text) == path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$GONE/x", "environment variable GONE is not set"),
        ("${GONE}", "environment variable GONE is not set"),
        ("$EMPTY/x", "environment variable EMPTY is empty"),
        ("${BIG/x", "is no variable"),
        ("${}", "is no variable"),
        ("~nobody_of_this_name/x", "no home folder of '~nobody_of_this_name'"),
        ("$CIRCLE/x", "names a variable again"),
    ],
)
def test_what_stands_for_nothing_is_an_error(text, message):
    with pytest.raises(UserError) as caught:
        expand(text)
    assert message in str(caught.value)


def test_arguments_of_every_parser_and_of_its_commands_are_expanded(capsys):
    parser = Parser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--count", type=int)
    command = parser.add_subparsers(dest="command").add_parser("sub")
    command.add_argument("files", type=Path, nargs="+")
    found = parser.parse_args(["--out", "$BIG/o", "--count", "3", "sub", "~/a", "b"])
    assert (found.out, found.count, found.files) == (Path("/big/o"), 3, [Path("/home/ada/a"), Path("b")])
    for wrong in ("$GONE/x", ""):
        with pytest.raises(SystemExit):
            parser.parse_args(["--out", wrong])
        assert "argument --out: " in capsys.readouterr().err


def test_a_default_stays_as_it_is():
    parser: argparse.ArgumentParser = Parser()
    parser.add_argument("--out", type=Path, default=Path("runs"))
    assert parser.parse_args([]).out == Path("runs")


def test_a_command_expands_its_paths():
    command = [sys.executable, "-m", "relvlm.cli", "config", "--config", "$CONFIGS/rex_vlm.yaml", "out=~/x"]
    environment = os.environ | {"CONFIGS": str(ROOT / "configs/mini")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0 and "\nout: /home/ada/x\n" in done.stdout, done.stderr
