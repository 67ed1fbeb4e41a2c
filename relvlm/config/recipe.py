"""How a model was trained, as far as its figures rest on it: what runs must share to be seeds of one model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from relvlm.config.keys import key_of, leaves
from relvlm.config.training import RANDOM

A_PATH = "(a path)"  # each seed may have data and a start of its own


def recipe_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """By dotted key, what a config's tree sets otherwise than the defaults.

    Without the seed, and without what a resumed run may change freely. Of a path it says only that it is set.
    """
    return {path: said for path, value in leaves(tree) if (said := _said(path, value)) is not None}


def _said(path: str, value: Any) -> Any:
    key = key_of(path)
    if key is None:  # of another version
        return value
    if path == "seed" or key.resume == "free" or value is None or _written(value) == key.default:
        return None
    return A_PATH if key.is_path and value != RANDOM else value


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def other_key(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Where two recipes first differ, with both values; empty where they are one."""
    for path in {**first, **second}:
        if first.get(path) != second.get(path):
            return f"{path}: {first.get(path, 'the default')!r} and {second.get(path, 'the default')!r}"
    return ""
