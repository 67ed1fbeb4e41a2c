"""JSON objects in which a key stands twice: `json` keeps the last value without a word."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any


class RepeatedKeys(dict[str, Any]):
    """A JSON object in which keys stand twice, so that all but the last values are lost; `repeated` are these keys."""

    repeated: frozenset[str]


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json`'s `object_pairs_hook`: a dict, or RepeatedKeys."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    marked = RepeatedKeys(found)
    times = Counter(key for key, _ in pairs)
    marked.repeated = frozenset(key for key in times if times[key] > 1)
    return marked


def loads_unique(data: bytes) -> Any:
    """The JSON value of `data`; raises ValueError also where an object has a key twice."""
    return json.loads(data, object_pairs_hook=_refuse_repeated)


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = unique_keys(pairs)
    if isinstance(found, RepeatedKeys):
        raise ValueError(f"{', '.join(sorted(found.repeated))}: stands twice in one object")
    return found
