"""A model folder that stands alone: written, found, loaded, and refused where a part does not fit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import RELATIONS, TAUGHT, WORDS, toy_pretraining

import relvlm
from relvlm.config.schema import Config, DataConfig
from relvlm.convert.names import TIED
from relvlm.errors import UserError
from relvlm.pretrained import checkpoint_folder, latest, read_teacher, write_alone

NAMES = [f"r{i}" for i in range(RELATIONS)]
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(WORDS - 5))]
SAVED = toy_pretraining(TAUGHT)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A checkpoint with a teacher and a vocabulary."""
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    tensors = {k: t.contiguous() for k, t in SAVED.model.state_dict().items() if k != TIED}
    config = Config(model=TAUGHT, data=DataConfig(vocab=str(tmp_path / "vocab.txt"), sep=True))
    write_alone(tmp_path / "model", tensors, SAVED.teacher.state_dict(), config, {"relations": NAMES})
    return tmp_path / "model"


def edit(folder: Path, **changes) -> None:
    description = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(description))


def test_a_folder_loads_as_the_model_that_was_written(folder):
    model = relvlm.load(folder)
    assert all(torch.equal(t, SAVED.model.state_dict()[name]) for name, t in model.state_dict().items())
    assert (model.relation_names, model.step, model.sep, model.training) == (NAMES, 0, True, False)
    assert model.tokenizer.pieces("w3 w0") == [8, 5]
    assert torch.equal(read_teacher(folder)["image_queue"], SAVED.teacher.image_queue)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model", "vocab.txt"]  # no temporary folder


def test_a_run_stands_for_its_latest_checkpoint(folder, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    assert latest(run / "checkpoints") is None
    folder.rename(run / "checkpoints" / "step_0000007")
    found = run / "checkpoints" / "step_0000007"
    assert [checkpoint_folder(path) for path in (run, run / "checkpoints", found)] == [found] * 3
    with pytest.raises(UserError, match="neither a checkpoint"):
        checkpoint_folder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": "7"}, "step: expected int, found '7'"),
        ({"step": True}, "step: expected int, found True"),
        ({"relations": None}, "relations: expected list, found None"),
        ({"data": {"sep": 1}}, "data.sep: expected true or false, found 1"),
        ({"vocab_size": WORDS + 1}, "model.safetensors is not of the model in config.json"),
        ({"relations": NAMES[1:]}, "model.safetensors is not of the model in config.json"),
        ({"model": {"image_size": 48}}, "model"),
    ],
)
def test_a_description_of_something_else_is_refused(changes, message, folder):
    edit(folder, **changes)
    with pytest.raises(UserError, match=message):
        relvlm.load(folder)


@pytest.mark.parametrize("gone", ["step", "model", "vocab_size", "relations", "data"])
def test_what_a_description_lacks_is_named(gone, folder):
    description = json.loads((folder / "config.json").read_text())
    del description[gone]
    (folder / "config.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=rf"config\.json: no {gone}: not the description"):
        relvlm.load(folder)


def test_a_vocabulary_of_another_length_is_refused(folder):
    (folder / "vocab.txt").write_text("\n".join(TOKENS[:-1]) + "\n")
    with pytest.raises(UserError, match=rf"vocab\.txt: {WORDS - 1} tokens, the model beside it has {WORDS}"):
        relvlm.load(folder)


def test_a_tensor_that_is_missing_is_named(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["text.embeddings.word.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"(?s)not of the model in config\.json: .*text\.embeddings\.word\.weight"):
        relvlm.load(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "teacher.pt"])
def test_a_torn_file_is_named(file, folder):
    (folder / file).write_bytes((folder / file).read_bytes()[:20])
    with pytest.raises(UserError, match=f"{file}: not readable"):
        read_teacher(folder) if file == "teacher.pt" else relvlm.load(folder)
