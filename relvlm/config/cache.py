"""Where shards are kept that come from an address. Fields as in relvlm/config/schema.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from relvlm.config.ranges import FREE, PATH, Range


@dataclass(frozen=True)
class CacheConfig:
    """The shards of sets at an address (`s3://`, ...), which each node keeps for all its processes."""

    folder: Annotated[str | None, "on a disk of the node; null is ~/.cache/relvlm/shards", PATH, FREE] = None
    max_gb: Annotated[
        float, "10^9 bytes that it holds; what was opened least recently goes", Range(0, 1_000_000, above=True), FREE
    ] = 100.0
    tries: Annotated[int, "of fetching a file, before the run ends", Range(1, 100), FREE] = 5
