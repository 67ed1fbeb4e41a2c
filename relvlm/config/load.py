"""Configs from YAML files, and back: defaults, then the file and its base, then `dotted.key=value`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from relvlm.config import yaml_text
from relvlm.config.check import all_problems
from relvlm.config.schema import Config, ModelConfig
from relvlm.config.tree import FAULTY, Faults, apply_overrides, build, read_section, read_tree


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Config of a YAML file and `dotted.key=value` overrides; raises UserError naming file and field.

    A file may name another as its `base`, relative to itself, and then holds what differs from that one.
    """
    tree = read_tree(path)
    apply_overrides(tree, overrides or [])
    return parse(tree, str(path))


def parse(tree: dict[str, Any], origin: str) -> Config:
    """Config of a tree of plain values; `origin` names it in the error, which lists everything that is wrong."""
    faults = Faults(origin)
    config = read_section(Config, tree, "", faults)
    for problem in all_problems(config) if config is not FAULTY else ():
        if not any(faults.within(field) for field in problem.fields):  # what is wrong by itself is said already
            faults.add(problem.field, problem.message)
    faults.check()
    return config


def model_config(tree: dict[str, Any], origin: str = "config.json") -> ModelConfig:
    """The model section alone, as a checkpoint keeps it."""
    return build(ModelConfig, tree, origin, "model")


def to_tree(config: Config) -> dict[str, Any]:
    """The plain values that `parse` turns back into an equal Config."""
    return dataclasses.asdict(config)


def to_yaml(config: Config) -> str:
    """The resolved config as YAML."""
    return yaml_text.write(to_tree(config))


def dump(config: Config, path: Path) -> None:
    """Write the resolved config as YAML."""
    path.write_text(to_yaml(config))
