"""A checkpoint of a toy that reads, and a folder of photos."""

from pathlib import Path

import pytest
from support.readers import reader, write_photos, write_reader

from relvlm.model import RelVLM


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reader(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture()
def model(tmp_path: Path) -> RelVLM:
    """The same weights."""
    return reader(tmp_path)


@pytest.fixture()
def photos(tmp_path: Path) -> list[Path]:
    return write_photos(tmp_path / "photos", 6)
