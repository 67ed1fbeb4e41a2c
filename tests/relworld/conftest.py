"""Worlds of both presets, and their evaluation files."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from support.worlds import PAIRS

from relvlm.relworld.build import write_benchmarks
from relvlm.relworld.config import PRESETS, WorldConfig, world_config
from relvlm.relworld.scene import Scene


@pytest.fixture(scope="session", params=sorted(PRESETS))
def config(request: pytest.FixtureRequest) -> WorldConfig:
    return world_config(request.param, benchmark_pairs=PAIRS)


@pytest.fixture(scope="session")
def written(config: WorldConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[int, Scene]]:
    out = tmp_path_factory.mktemp("world") / "benchmarks"
    return out, write_benchmarks(out, config, seed=0)


@pytest.fixture
def folder(written: tuple[Path, Mapping[int, Scene]]) -> Path:
    return written[0]


@pytest.fixture
def shown(written: tuple[Path, Mapping[int, Scene]]) -> Mapping[int, Scene]:
    """The scene of each picture, by image id."""
    return written[1]
