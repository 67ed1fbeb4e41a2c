"""`relvlm config`: the resolved config as YAML, the list of keys."""

import argparse
import json

import pytest
import yaml

from relvlm.config import cli
from relvlm.config.load import load_config, parse
from relvlm.errors import UserError


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    cli.main(parser.parse_intermixed_args(list(arguments)))


def test_what_it_prints_is_the_resolved_config(file, capsys):
    run("--config", str(file), "steps=7")
    printed = yaml.safe_load(capsys.readouterr().out)
    assert parse(printed, "printed") == load_config(file, ["steps=7"]) and printed["steps"] == 7


def test_a_wrong_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no such config file"):
        run("--config", str(tmp_path / "gone.yaml"))


def test_the_keys_are_listed_on_request(capsys):
    run("--schema")
    assert "\n  optim.lr: float = 0.0001\n      learning rate after the warm-up\n" in capsys.readouterr().out


def test_the_list_says_the_range_and_what_a_resume_may_do(capsys):
    run("--schema")
    printed = capsys.readouterr().out
    assert "\n      range: above 0, finite; at a resume: if resume.accept names it\n" in printed
    assert "\n      range: at least 0 and at most 1,024; at a resume: may change\n" in printed


def test_the_list_of_keys_is_for_programs_too(capsys):
    run("--schema", "--json")
    assert {"steps", "optim.lr"} < {key["path"] for key in json.loads(capsys.readouterr().out)}
    with pytest.raises(UserError, match="goes with --schema"):
        run("--config", "x.yaml", "--json")


@pytest.mark.parametrize("arguments", [[], ["--schema", "--config", "x.yaml"]])
def test_it_is_asked_one_thing(arguments):
    with pytest.raises(SystemExit):
        run(*arguments)


def test_overrides_without_a_config_are_an_error():
    with pytest.raises(UserError, match="steps=7: overrides go with --config"):
        run("--schema", "steps=7")
