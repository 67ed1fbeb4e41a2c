"""Checkpoint folders of random toy models, as the trainer writes them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from toys import RELATIONS, VIT, WORDS, toy_model

from relvlm.config.schema import Config, DataConfig, ModelConfig
from relvlm.convert.names import TIED
from relvlm.pretrained import write_alone

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOKENS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "dog",
    "on",
    "the",
    "box",
    *(f"w{i}" for i in range(WORDS)),
]


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint of a toy model: `written(config)`."""

    def write(config: ModelConfig = VIT, **data: object) -> Path:
        vocab = tmp_path / "vocab.txt"
        vocab.write_text("\n".join(TOKENS[:WORDS]) + "\n")
        tensors = {k: t.contiguous() for k, t in toy_model(config).state_dict().items() if k != TIED}
        whole = Config(name="toy", model=config, data=DataConfig(vocab=str(vocab), sep=True, **data))  # type: ignore[arg-type]
        write_alone(tmp_path / "toy", tensors, {}, whole, {"relations": [f"r{i}" for i in range(RELATIONS)]})
        return tmp_path / "toy"

    return write


@pytest.fixture
def folder(written: Callable[..., Path]) -> Path:
    """Of a small ReX-VLM with a ViT."""
    return written()
