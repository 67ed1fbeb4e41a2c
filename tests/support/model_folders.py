"""Checkpoint folders of toy models with random weights, as the trainer writes them."""

from pathlib import Path

from toys import RELATIONS, VIT, WORDS, toy_model

from relvlm.config.schema import Config, DataConfig, ModelConfig
from relvlm.convert.names import TIED
from relvlm.pretrained import write_alone

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "on", "the", "box"]


def write_toy(parent: Path, config: ModelConfig = VIT, **data: object) -> Path:
    """The folder `toy` in `parent`, and the vocabulary beside it; `data`: of its config's section of that name."""
    vocab = parent / "vocab.txt"
    vocab.write_text("\n".join([*TOKENS, *(f"w{i}" for i in range(WORDS - len(TOKENS)))]) + "\n")
    tensors = {k: t.contiguous() for k, t in toy_model(config).state_dict().items() if k != TIED}
    whole = Config(name="toy", model=config, data=DataConfig(vocab=str(vocab), sep=True, **data))  # type: ignore[arg-type]
    write_alone(parent / "toy", tensors, {}, whole, {"relations": [f"r{i}" for i in range(RELATIONS)]})
    return parent / "toy"
