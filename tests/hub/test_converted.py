"""Official checkpoints, from their .pth to transformers: converted, published, loaded."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from relvlm import cli
from relvlm.convert.official import from_official
from relvlm.hub import RelVLMModel

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog"]


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["relvlm", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code


@pytest.mark.parametrize(
    ("name", "family"), [("albef_small", "albef"), ("xvlm_small", "xvlm"), ("xvlm_vit_small", "xvlm")]
)
def test_an_official_checkpoint_is_published_as_any_other(name, family, shared, tmp_path: Path, monkeypatch):
    source = shared / f"parity/{name}.pt"
    vectors = torch.load(source, weights_only=True)
    official = from_official({k: t.float() for k, t in vectors["state_dict"].items()}, vectors["config"], family)
    words = len(official.text.embeddings.word.weight)
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join([*SPECIAL, *(f"w{i}" for i in range(words - len(SPECIAL)))]) + "\n")
    run(monkeypatch, "convert", family, source, tmp_path / "ours", "--vocab", vocab)
    run(monkeypatch, "publish", tmp_path / "ours", tmp_path / "published", "--license", "bsd-3-clause")
    for folder in ("ours", "published"):
        model = AutoModel.from_pretrained(tmp_path / folder).eval()
        assert type(model) is RelVLMModel
        assert all(torch.equal(t, official.state_dict()[n]) for n, t in model.relvlm.state_dict().items())
        processor = AutoProcessor.from_pretrained(tmp_path / folder)
        assert processor(text="dog")["input_ids"].tolist() == [[2, 5]]  # without [SEP]
    assert f"official {family} checkpoint" in (tmp_path / "published/README.md").read_text()
