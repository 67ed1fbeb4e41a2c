"""Checkpoints: whole or not there, pruned from the old end, and clear about what they are not."""

import errno
import json
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support import programs

import relvlm
from relvlm import pretrained, storage
from relvlm.config.schema import (
    CheckpointConfig,
    Config,
    DataConfig,
    FusionConfig,
    ModelConfig,
    MomentumConfig,
    TextConfig,
)
from relvlm.config.vision import ViTConfig
from relvlm.engine import run_state
from relvlm.errors import UserError
from relvlm.model import RelVLM
from relvlm.pretraining.step import Pretraining

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "on", "mat"]
RELATIONS = ["left of", "on"]
MODEL = ModelConfig(
    image_size=16, embed_dim=4, vision=ViTConfig(width=8, layers=1, heads=1, patch_size=8),
    text=TextConfig(layers=1, heads=1, width=8, max_positions=8), fusion=FusionConfig(layers=1, heads=1),
    mrc_hidden=6,
)  # fmt: skip


class Engine:
    """As much of DeepSpeed's engine as saving uses; its own state is one number."""

    def __init__(self, config: Config) -> None:
        torch.manual_seed(0)
        self.module = Pretraining(RelVLM(config.model, len(WORDS), len(RELATIONS)))
        self.state = 0

    def zero_optimization_stage(self) -> int:
        return 1

    def save_checkpoint(self, folder: str, tag: str, client_state: dict, save_latest: bool) -> None:
        (Path(folder) / tag).mkdir()
        (Path(folder) / tag / "state").write_text(str(self.state))

    def load_checkpoint(self, folder: str, tag: str) -> None:
        self.state = int((Path(folder) / tag / "state").read_text())


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "relations.txt").write_text("left of\n\n on \n")
    data = DataConfig(vocab=str(tmp_path / "vocab.txt"), relations=str(tmp_path / "relations.txt"), sep=False)
    return Config(out=str(tmp_path / "run"), model=MODEL, data=data)


@pytest.fixture
def folder(config: Config) -> Path:
    return Path(config.out) / "checkpoints"


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*step_*") if not path.name.startswith("."))


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        relvlm.load(path)
    return str(caught.value)


def test_what_is_saved_loads_as_a_model_ready_to_score(config, folder):
    engine = Engine(config)
    saved = run_state.save(engine, folder, 7, config)
    assert saved == folder / "step_0000007" == pretrained.latest(folder)
    for path in (saved, folder, config.out):
        model = relvlm.load(path)
        assert (model.step, model.relation_names, model.sep, model.training) == (7, RELATIONS, False, False)
        assert model.tokenizer.vocab_size == len(WORDS)
        for name, tensor in engine.module.model.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name
        assert model.mlm_head.decoder.weight is model.text.embeddings.word.weight


@pytest.mark.parametrize("place", ["rename", "sync", "write_model"])
def test_a_crash_in_the_middle_of_saving_leaves_the_older_checkpoint(config, folder, monkeypatch, place):
    engine = Engine(config)
    older = run_state.save(engine, folder, 5, config)

    def crash(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(*((Path, "rename") if place == "rename" else (run_state, place)), crash)
        with pytest.raises(OSError, match="no space left"):
            run_state.save(engine, folder, 10, config)
    assert steps(folder) == ["step_0000005"] and pretrained.latest(folder) == older
    assert relvlm.load(config.out).step == 5
    assert run_state.restore(engine, older) == 5
    run_state.save(engine, folder, 10, config)  # over what the crash left
    assert relvlm.load(config.out).step == 10
    assert [path.name for path in folder.glob(".*")] == []


def test_a_crash_before_latest_moves_goes_on_from_the_older_checkpoint(config, folder, monkeypatch):
    engine = Engine(config)
    older = run_state.save(engine, folder, 5, config)
    with monkeypatch.context() as broken:
        broken.setattr(run_state, "_point_latest", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_state.save(engine, folder, 10, config)
    assert pretrained.latest(folder) == older
    keeps_one = replace(config, checkpoint=CheckpointConfig(keep=1))
    run_state.save(engine, folder, 7, keeps_one)  # with a new interval: the orphan 10 must not count as newest
    assert pretrained.latest(folder) == folder / "step_0000007"
    assert relvlm.load(config.out).step == 7


@pytest.mark.parametrize(("keep", "left"), [(0, [1, 2, 3, 4]), (1, [4]), (3, [2, 3, 4]), (9, [1, 2, 3, 4])])
def test_pruning_keeps_the_newest(config, folder, keep, left):
    engine = Engine(config)
    config = replace(config, checkpoint=CheckpointConfig(keep=keep))
    for step in range(1, 5):
        run_state.save(engine, folder, step, config)
    assert steps(folder) == [f"step_{step:07d}" for step in left]
    assert relvlm.load(config.out).step == 4


def test_restoring_brings_back_state_step_and_random_numbers(config, folder):
    engine = Engine(config)
    engine.state = 3
    torch.manual_seed(11)
    saved = run_state.save(engine, folder, 5, config)
    expected = torch.rand(4)
    engine.state = 4
    torch.manual_seed(12)
    assert run_state.restore(engine, saved) == 5
    assert engine.state == 3 and torch.equal(torch.rand(4), expected)


def test_restoring_without_this_ranks_random_state_says_why(config, folder):
    engine = Engine(config)
    saved = run_state.save(engine, folder, 5, config)
    (saved / "rng_00000.pt").unlink()
    with pytest.raises(UserError, match=r"rng_00000\.pt: missing: the run had fewer processes"):
        run_state.restore(engine, saved)


def test_the_momentum_teacher_is_saved_beside_the_model(config, folder):
    config = replace(config, model=replace(MODEL, momentum=MomentumConfig(enabled=True, queue=6)))
    engine = Engine(config)
    engine.module.teacher.update(engine.module.model)
    queue = engine.module.teacher.text_queue.clone()
    saved = run_state.save(engine, folder, 5, config)
    other = Engine(config)
    other.module.teacher.text_queue.zero_()
    run_state.restore(other, saved)
    assert other.module.teacher.seen == 1 and torch.equal(other.module.teacher.text_queue, queue)
    assert relvlm.load(saved).step == 5


def test_a_model_without_relations_needs_no_relation_file(config, folder):
    model = replace(MODEL, relations=False)
    config = replace(config, model=model, data=replace(config.data, relations="gone.txt"))
    run_state.save(Engine(config), folder, 1, config)
    assert relvlm.load(config.out).relation_names == []


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path):
    assert refusal(tmp_path) == (f"{tmp_path}: neither a checkpoint (no config.json) nor a run with checkpoints/latest")
    assert str(tmp_path / "none") in refusal(tmp_path / "none")


def test_latest_that_points_nowhere_is_named(config, folder):
    run_state.save(Engine(config), folder, 5, config)
    (folder / "latest").write_text("step_0000009")
    assert refusal(Path(config.out)).startswith(f"{folder / 'step_0000009' / 'config.json'}: not readable")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", b"{", "not readable"),
        ("config.json", b"\xff\xfe", "not readable"),
        ("config.json", b'{"step": 3}', "no data, model, relations, vocab_size: not the description"),
        ("config.json", b"[]", "not the description of a relvlm checkpoint"),
        ("model.safetensors", b"torn", "not readable"),
        ("model.safetensors", None, "not readable"),
        ("vocab.txt", None, ""),
    ],
)
def test_a_damaged_checkpoint_names_the_file(config, folder, file, content, message):
    path = run_state.save(Engine(config), folder, 5, config) / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    found = refusal(folder)
    assert found.startswith(f"{path}: ") and message in found


def test_a_full_disk_is_one_line_with_room_and_place(config, folder, monkeypatch):
    engine = Engine(config)
    older = run_state.save(engine, folder, 5, config)
    size = storage.gigabytes(storage.size(older))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for place, step in (("sync", 6), ("write_model", 7)):
        with monkeypatch.context() as broken:
            broken.setattr(run_state, place, full)
            with pytest.raises(UserError) as caught:
                run_state.save(engine, folder, step, config)
        said = str(caught.value)
        assert said.startswith(f"{folder / f'step_{step:07d}'}: cannot be written: [Errno 28] No space left on device")
        assert f"needs about {size}, " in said and " free there" in said and "\n" not in said
        assert sorted(path.name for path in folder.iterdir()) == ["latest", "step_0000005"]


@pytest.mark.parametrize("limit", [2000, 20_000])
def test_a_file_that_cannot_grow_is_one_line_too(config, folder, limit):
    """The real thing: torch and safetensors write what the system then refuses."""
    script = (
        "import resource, signal, sys; sys.path[:0] = [sys.argv[1], 'tests']\n"
        "import test_run_state as here; from pathlib import Path; from relvlm.errors import UserError\n"
        "config = here.replace(here.Config(out=sys.argv[2], model=here.MODEL), data=here.DataConfig(\n"
        "    vocab=sys.argv[3], relations=sys.argv[4]))\n"
        "engine = here.Engine(config)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "try:\n    here.run_state.save(engine, Path(config.out) / 'checkpoints', 1, config)\n"
        "except UserError as error:\n    print(error)\n"
    )
    arguments = [str(Path(__file__).parent), config.out, str(config.data.vocab), str(config.data.relations)]
    done = programs.run("-c", script, *arguments)
    assert done.stdout.startswith(f"{folder / 'step_0000001'}: cannot be written: ") and "needs about" in done.stdout
    assert done.stdout.count("\n") == 1 and list(folder.iterdir()) == []


def test_what_a_killed_save_left_is_cleared(folder):
    for name in (".step_0000005.tmp/deepspeed", "step_0000004", "mine"):
        (folder / name).mkdir(parents=True)
    (folder / ".latest.tmp").write_text("step")
    run_state.clear(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["mine", "step_0000004"]


def test_a_checkpoint_keeps_what_its_run_was_told(config, folder):
    folder.mkdir(parents=True)
    (folder.parent / "run.json").write_text("{}")
    assert (run_state.save(Engine(config), folder, 5, config) / "run.json").read_text() == "{}"


def test_tensors_are_saved_in_fp32_with_the_tied_ones_once(config):
    engine = Engine(config)
    engine.module.bfloat16()
    tensors = run_state.full_tensors(engine)
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    assert engine.module.model.state_dict().keys() - tensors.keys() == {"mlm_head.decoder.weight"}


def test_the_description_says_what_was_trained_on_what(config, folder):
    saved = run_state.save(Engine(config), folder, 5, config)
    description = json.loads((saved / "config.json").read_text())
    assert description["data"]["vocab"] == config.data.vocab and description["vocab_size"] == len(WORDS)
    assert (saved / "vocab.txt").read_text() == "\n".join(WORDS)


def test_a_seed_decides_every_generator():
    def draw() -> SimpleNamespace:
        run_state.seed_everything(5)
        import numpy as np

        return SimpleNamespace(python=random.random(), numpy=np.random.rand(), torch=torch.rand(1).item())

    assert draw() == draw()
