"""Checkpoint folders of toy models."""

from pathlib import Path

import pytest
from support.model_folders import write_toy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a small ReX-VLM with a ViT."""
    return write_toy(tmp_path)
