"""A tiny model, its checkpoints, and a benchmarks folder of a few rows of each task."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from relvlm.config.schema import FusionConfig, ModelConfig, TextConfig
from relvlm.config.vision import ViTConfig
from relvlm.data.text import Tokenizer
from relvlm.model import RelVLM

SMALL = ModelConfig(
    image_size=32,
    embed_dim=8,
    vision=ViTConfig(width=16, layers=1, heads=2, patch_size=16),
    text=TextConfig(width=16, layers=1, heads=2, max_positions=64),
    fusion=FusionConfig(layers=1, heads=2),
)


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    words = [
        *["a", "person", "dog", "on", "the", "left", "of", "right", "red", "box", "is", "in"],
        *"abcdefghijklmnopqrstuvwxyz0123456789",
    ]
    pieces = [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    path.write_text("\n".join(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *pieces])))
    return path


@pytest.fixture()
def model(vocab: Path) -> RelVLM:
    torch.manual_seed(0)
    tokenizer = Tokenizer(vocab)
    made = RelVLM(SMALL, tokenizer.vocab_size, 3).eval()
    made.tokenizer = tokenizer  # type: ignore[assignment]
    return made


@pytest.fixture()
def suite(tmp_path: Path) -> Path:
    """A benchmarks folder in RelWorld's layout: 12 images, a few rows of each task."""
    folder, rng = tmp_path / "benchmarks", np.random.default_rng(0)
    files: dict[str, object] = {}
    for i in range(12):
        path = folder / "images" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
    vsr = [
        {"image": f"{i}.jpg", "caption": f"a box {i}", "label": i % 2, "relation": "left of"}
        for i in range(12)
    ]
    header = (
        "sentence,pos_triplet,neg_triplet,pos_url,neg_url,pos_image_id,neg_image_id,subj_neg,verb_neg,obj_neg"
    )
    svo = [f'a dog,"a,b,c","a,d,c",u,v,{i},{i + 1},False,True,False' for i in range(6)]
    mturk = {"caption": 3, "foil": 0, "other": 0}
    valse = {
        f"e_{i}": {"image_file": f"{i}.jpg", "caption": "a dog", "foil": "a box", "mturk": mturk}
        for i in range(5)
    }
    sugar = {
        str(i): {"filename": f"{i}.jpg", "caption": "a dog", "negative_caption": "a box"} for i in range(5)
    }
    files["vsr/dev.jsonl"] = files["vsr/test.jsonl"] = "".join(json.dumps(row) + "\n" for row in vsr)
    files["svo/svo_probes.csv"] = "\n".join([header, *svo]) + "\n"
    files["valse/plurals.json"] = json.dumps(valse)
    files["sugarcrepe/swap_obj.json"] = json.dumps(sugar)
    rows = [{"image_id": i, "url": "", "paragraph": f"the dog is on {i}"} for i in range(12)]
    files["paragraphs/paragraphs_v1.json"] = json.dumps(rows)
    files["paragraphs/test_split.json"] = json.dumps(list(range(12)))
    coco = [
        {
            "filepath": "images",
            "filename": f"{i}.jpg",
            "split": "test",
            "sentences": [{"raw": f"dog {i}"}] * 2,
        }
        for i in range(12)
    ]
    files["coco/karpathy.json"] = json.dumps({"images": coco, "dataset": "x"})
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(str(text))
    return folder


def make_model(vocab: Path, seed: int = 0, scale: float = 4.0) -> RelVLM:
    """A random model whose weights are larger than at initialisation, so that pairs differ visibly."""
    torch.manual_seed(seed)
    tokenizer = Tokenizer(vocab)
    made = RelVLM(SMALL, tokenizer.vocab_size, 3).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
    made.tokenizer = tokenizer  # type: ignore[assignment]
    return made


@pytest.fixture()
def checkpoint(vocab: Path) -> Callable[..., Path]:
    """Writes the standing-alone part of a checkpoint of a random model and returns its folder."""

    def write(folder: Path, step: int, seed: int = 0) -> Path:
        made = make_model(vocab, seed)
        path = folder / f"step_{step:07d}"
        path.mkdir(parents=True)
        tensors = {k: v.contiguous() for k, v in made.state_dict().items() if k != "mlm_head.decoder.weight"}
        save_file(tensors, path / "model.safetensors")
        description = {
            "step": step,
            "name": "tiny",
            "model": dataclasses.asdict(SMALL),
            "vocab_size": made.tokenizer.vocab_size,
            "relations": ["a", "b", "c"],
            "data": {"sep": True},
        }
        (path / "config.json").write_text(json.dumps(description))
        (path / "vocab.txt").write_text(vocab.read_text())
        (folder / "latest").write_text(path.name)
        return path

    return write
