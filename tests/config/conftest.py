"""The smallest config that loads, and what a wrong one is refused with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from relvlm.config.load import load_config
from relvlm.errors import UserError

MINIMAL = """\
model: {localisation: false, relations: false}
data: {captions: [{path: shards}], batch: {captions: 4}, ratio: {captions: 1}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(MINIMAL)
    return path


@pytest.fixture
def refusal(file: Path) -> Callable[..., str]:
    """The error that overrides of the smallest config lead to, without the file's name."""

    def message(*overrides: str) -> str:
        with pytest.raises(UserError) as caught:
            load_config(file, list(overrides))
        assert str(caught.value).startswith(f"{file}: ")
        return str(caught.value).removeprefix(f"{file}: ")

    return message
