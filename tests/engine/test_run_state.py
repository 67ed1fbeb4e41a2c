"""What a checkpoint holds, how a run goes on from it, and what is said of one that is damaged."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.saved_runs import MODEL, RELATIONS, WORDS, Engine, made_config, save

import relvlm
from relvlm import pretrained
from relvlm.config.schema import Config, MomentumConfig
from relvlm.engine import run_state, slices
from relvlm.errors import UserError


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return made_config(tmp_path)


@pytest.fixture
def folder(config: Config) -> Path:
    return Path(config.out) / "checkpoints"


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        relvlm.load(path)
    return str(caught.value)


def test_what_is_saved_loads_as_a_model_ready_to_score(config, folder):
    engine = Engine(config)
    saved = save(engine, folder, 7, config)
    assert saved == folder / "step_0000007" == pretrained.latest(folder)
    for path in (saved, folder, config.out):
        model = relvlm.load(path)
        assert (model.step, model.relation_names, model.sep, model.training) == (7, RELATIONS, False, False)
        assert model.tokenizer.vocab_size == len(WORDS)
        for name, tensor in engine.module.model.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name
        assert model.mlm_head.decoder.weight is model.text.embeddings.word.weight


def test_the_momentum_teacher_is_saved_beside_the_model(config, folder):
    config = replace(config, model=replace(MODEL, momentum=MomentumConfig(enabled=True, queue=6)))
    engine = Engine(config)
    engine.module.teacher.update(engine.module.model)
    queue = engine.module.teacher.text_queue.clone()
    saved = save(engine, folder, 5, config)
    other = Engine(config)
    other.module.teacher.text_queue.zero_()
    run_state.restore(other, saved)
    assert other.module.teacher.seen == 1 and torch.equal(other.module.teacher.text_queue, queue)
    assert relvlm.load(saved).step == 5


def test_a_model_without_relations_needs_no_relation_file(config, folder):
    model = replace(MODEL, relations=False)
    config = replace(config, model=model, data=replace(config.data, relations="gone.txt"))
    save(Engine(config), folder, 1, config)
    assert relvlm.load(config.out).relation_names == []


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path):
    assert refusal(tmp_path) == (f"{tmp_path}: neither a checkpoint (no config.json) nor a run with checkpoints/step_*")
    assert str(tmp_path / "none") in refusal(tmp_path / "none")


def test_latest_is_no_more_than_a_hint(config, folder):
    saved = save(Engine(config), folder, 5, config)
    for hint in ("step_0000009", ""):
        (folder / "latest").write_text(hint)
        assert pretrained.latest(folder) == saved and relvlm.load(config.out).step == 5
    (folder / "latest").unlink()
    assert pretrained.latest(folder) == saved


def test_a_run_goes_on_to_the_bit(config, folder):
    engine, other = Engine(config), Engine(config)
    for _ in range(3):
        engine.step()
    saved = save(engine, folder, 5, config, skipped=2)
    other.step()
    progress = run_state.restore(other, saved)
    assert progress == run_state.Progress(step=5, updates=3, schedule=3, skipped=2)
    assert slices.updates(other) == 3 and other.lr_scheduler.last_epoch == 3
    for each in (engine, other):
        torch.manual_seed(1)
        for group in each.optimizer.param_groups:
            group["lr"] = 0.1  # the loop's affair (schedule.keep_settings)
        each.step()
    for name, tensor in engine.module.state_dict().items():
        assert torch.equal(other.module.state_dict()[name], tensor), name


def test_a_checkpoint_before_the_first_update_is_one_too(config, folder):
    saved, other = save(Engine(config), folder, 1, config), Engine(config)
    other.step()
    assert run_state.restore(other, saved) == run_state.Progress(step=1)
    assert slices.updates(other) == 0 and not any(x["exp_avg"].any() for x in other.optimizer.state.values())


def test_the_state_of_another_model_is_refused(config, folder):
    saved = save(Engine(config), folder, 5, config)
    more = replace(config, model=replace(MODEL, text=replace(MODEL.text, layers=2)))
    with pytest.raises(UserError, match=r"has no state of text\.\S+ and \d+ others \(another model\)"):
        run_state.restore(Engine(more), saved)
    wider = replace(config, model=replace(MODEL, mrc_hidden=8))
    with pytest.raises(UserError, match=r"no \w+ of mrc_head\.\S+ from element \d+ on"):
        run_state.restore(Engine(wider), saved)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"step": 1, "pace": 2}'])
def test_a_checkpoint_that_does_not_say_how_far_it_is_is_named(config, folder, text):
    path = save(Engine(config), folder, 5, config) / run_state.PROGRESS
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UserError, match=r"progress\.json: not readable"):
        run_state.restore(Engine(config), path.parent)


def test_too_little_room_for_one_checkpoint_is_said_at_the_start(config, monkeypatch):
    model = Engine(config).module
    needed = run_state.FEWEST_BYTES_A_PARAMETER * sum(p.numel() for p in model.parameters())
    room = SimpleNamespace(total=10 * needed, free=needed)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    run_state.check_room(model, Path(config.out))
    room.free -= 1
    with pytest.raises(UserError, match=r"out: .*No space for a checkpoint"):
        run_state.check_room(model, Path(config.out))


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
    path = save(Engine(config), folder, 5, config) / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    found = refusal(folder)
    assert found.startswith(f"{path}: ") and message in found


def test_a_checkpoint_keeps_what_its_run_was_told(config, folder):
    folder.mkdir(parents=True)
    (folder.parent / "run.json").write_text("of this run")
    assert (save(Engine(config), folder, 5, config) / "run.json").read_text() == "of this run"


def test_tensors_are_saved_in_fp32_with_the_tied_ones_once(config):
    engine = Engine(config)
    engine.module.bfloat16()
    tensors = run_state.full_tensors(engine)
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    assert engine.module.model.state_dict().keys() - tensors.keys() == {"mlm_head.decoder.weight"}


def test_the_description_says_what_was_trained_on_what(config, folder):
    saved = save(Engine(config), folder, 5, config)
    description = json.loads((saved / "config.json").read_text())
    assert description["data"]["vocab"] == config.data.vocab and description["vocab_size"] == len(WORDS)
    assert (saved / "vocab.txt").read_text() == "\n".join(WORDS)


def test_a_seed_decides_every_generator():
    def draw() -> SimpleNamespace:
        run_state.seed_everything(5)
        import numpy as np

        return SimpleNamespace(python=random.random(), numpy=np.random.rand(), torch=torch.rand(1).item())

    assert draw() == draw()


def test_a_steps_random_numbers_are_those_of_seed_step_and_rank(monkeypatch):
    def draw(seed: int, step: int, rank: int) -> float:
        monkeypatch.setattr(run_state, "rank", lambda: rank)
        run_state.seed_step(seed, step)
        return torch.rand(1).item()

    numbers = {draw(seed, step, rank) for seed in (0, 1) for step in (1, 2) for rank in (0, 1)}
    assert len(numbers) == 8 and draw(0, 1, 0) in numbers
