"""What every test may ask for."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data and reference vectors (RELVLM_TEST_DATA, default ../shared)."""
    folder = Path(os.environ.get("RELVLM_TEST_DATA", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no test data in {folder} (set RELVLM_TEST_DATA)")
    return folder
