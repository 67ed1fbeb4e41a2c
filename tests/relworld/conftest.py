"""Worlds of both presets, and their evaluation files."""

from pathlib import Path

import pytest
from support.worlds import PAIRS

from relvlm.relworld.build import write_benchmarks
from relvlm.relworld.config import PRESETS, WorldConfig, world_config


@pytest.fixture(scope="session", params=sorted(PRESETS))
def config(request: pytest.FixtureRequest) -> WorldConfig:
    return world_config(request.param, benchmark_pairs=PAIRS)


@pytest.fixture(scope="session")
def folder(config: WorldConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "benchmarks"
    write_benchmarks(out, config, seed=0)
    return out
