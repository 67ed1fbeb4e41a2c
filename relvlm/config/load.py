"""Configs from YAML files, and back: defaults, then the file and its base, then `dotted.key=value`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from relvlm.config.check import problems
from relvlm.config.schema import Config, ModelConfig
from relvlm.config.tree import apply_override, build, read_tree
from relvlm.errors import UserError


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Config of a YAML file and `dotted.key=value` overrides; raises UserError naming file and field.

    A file may name another as its `base`, relative to itself, and then holds what differs from that one.
    """
    tree = read_tree(path)
    for override in overrides or []:
        apply_override(tree, override)
    return parse(tree, str(path))


def parse(tree: dict[str, Any], origin: str) -> Config:
    """Config of a tree of plain values; `origin` names it in errors."""
    config = build(Config, tree, origin, "")
    for problem in problems(config):
        raise UserError(f"{origin}: {problem}")
    return config


def model_config(tree: dict[str, Any], origin: str = "config.json") -> ModelConfig:
    """The model section alone, as a checkpoint keeps it."""
    return build(ModelConfig, tree, origin, "model")


def to_tree(config: Config) -> dict[str, Any]:
    """The plain values that `parse` turns back into an equal Config."""
    return dataclasses.asdict(config)


def to_yaml(config: Config) -> str:
    """The resolved config as YAML."""
    return yaml.safe_dump(to_tree(config), sort_keys=False)


def dump(config: Config, path: Path) -> None:
    """Write the resolved config as YAML."""
    path.write_text(to_yaml(config))
