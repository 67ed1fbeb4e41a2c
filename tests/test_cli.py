"""`relvlm COMMAND` as a user types it."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from relvlm.cli import COMMANDS, WITH_OVERRIDES

ROOT = Path(__file__).resolve().parents[1]
CONFIG = str(ROOT / "configs/mini/rex_vlm.yaml")


def relvlm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "relvlm.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_help_lists_every_command():
    told = relvlm("--help").stdout
    assert all(f" {name} " in told for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_module_with_arguments_and_a_main(name):
    module = import_module(COMMANDS[name][0])
    assert callable(module.add_arguments) and callable(module.main)
    assert name not in WITH_OVERRIDES or "key=value" in relvlm(name, "--help").stdout


@pytest.mark.parametrize("arguments", [[], ["pretrain"]])
def test_no_command_or_an_unknown_one_is_an_error(arguments):
    done = relvlm(*arguments)
    assert done.returncode == 2 and "usage: relvlm" in done.stderr


def test_what_a_user_gets_wrong_is_one_line():
    done = relvlm("config", "--config", CONFIG, "stepps=3")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == f"error: {CONFIG}: stepps: unknown key (did you mean 'steps'?)\n"


def test_overrides_may_stand_before_options():
    done = relvlm("config", "steps=77", "--config", CONFIG, "seed=5")
    assert done.returncode == 0 and "\nsteps: 77\n" in done.stdout and "\nseed: 5\n" in done.stdout


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m relvlm.cli config --schema | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "top level: A run.\n", "")
