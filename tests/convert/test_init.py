"""What a training starts from: checkpoints of ours, and nothing at random without a word."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import RELATIONS, TAUGHT, VIT, WORDS, toy_pretraining

from relvlm.config.load import parse
from relvlm.config.schema import Config, InitConfig
from relvlm.convert import from_official
from relvlm.convert.cli import main as convert
from relvlm.convert.init import check_init, initialise
from relvlm.convert.names import TIED
from relvlm.errors import UserError
from relvlm.model import RelVLM
from relvlm.pretrained import write_alone
from relvlm.pretraining.step import Pretraining

NAMES = [f"r{i}" for i in range(RELATIONS)]


def checkpoint(folder: Path, pretraining: Pretraining) -> Path:
    """A checkpoint of ours with the relations NAMES."""
    tensors = {k: t.contiguous() for k, t in pretraining.model.state_dict().items() if k != TIED}
    teacher = pretraining.teacher.state_dict() if pretraining.teacher else {}
    config = Config(model=pretraining.model.config)
    write_alone(folder / "start", tensors, teacher, config, {"relations": NAMES})
    return folder / "start"


def other_model(config=VIT) -> RelVLM:
    torch.manual_seed(5)
    return RelVLM(config, WORDS, RELATIONS)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (InitConfig(), r"init\.vision: nothing to start from"),
        (InitConfig(vision="random"), r"init\.text: nothing to start from"),
        (InitConfig(vision="random", text="gone"), r"init\.text: no folder or file 'gone'"),
        (InitConfig(checkpoint="x", text="random"), r"init: name a checkpoint or backbones, not both"),
        (InitConfig(checkpoint="gone"), "gone: neither a checkpoint"),
    ],
)
def test_nothing_starts_silently_at_random(init, message):
    with pytest.raises(UserError, match=message):
        check_init(init)


def test_random_on_purpose_is_one_word():
    data = {"captions": [{"path": "x"}], "ratio": {"captions": 1}, "batch": {"captions": 1}}
    config = parse({"init": "random", "data": data}, "run.yaml")
    check_init(config.init)
    with pytest.raises(UserError, match=r"run\.yaml: init: expected a section, found 'chance'"):
        parse({"init": "chance", "data": data}, "run.yaml")


@pytest.mark.parametrize(("relations", "kept"), [(NAMES, True), (NAMES[::-1], False)])
def test_relation_classes_are_kept_where_they_mean_the_same(relations, kept, tmp_path):
    saved = toy_pretraining()
    start, model = checkpoint(tmp_path, saved), other_model()
    before = model.mrc_head.second.weight.clone()
    report = initialise(model, InitConfig(checkpoint=str(start)), relations)
    expected = saved.model.mrc_head.second.weight if kept else before
    assert torch.equal(model.mrc_head.second.weight, expected)
    heads = [name for name in model.state_dict() if name.startswith("mrc_head.")]
    assert (report.new, sorted(report.unused)) == (([], []) if kept else (sorted(heads), sorted(heads)))
    assert torch.equal(model.text_projection.weight, saved.model.text_projection.weight)
    assert f"{len(report.loaded)} loaded, 0 of them resized, {len(report.new)} new" in report.summary()


def test_the_box_head_alone_may_be_missing_or_left_over(tmp_path):
    boxless = replace(VIT, localisation=False)
    start = checkpoint(tmp_path, toy_pretraining(boxless))
    report = initialise(other_model(), InitConfig(checkpoint=str(start)), NAMES)
    assert report.new and all(name.startswith("box_head.") for name in report.new)
    (tmp_path / "whole").mkdir()
    whole = checkpoint(tmp_path / "whole", toy_pretraining())
    report = initialise(other_model(boxless), InitConfig(checkpoint=str(whole)), NAMES)
    assert not report.new and all(name.startswith("box_head.") for name in report.unused)
    deeper = other_model(replace(VIT, text=replace(VIT.text, layers=3)))
    with pytest.raises(UserError, match=r"keys do not fit: \d+ missing: text\.layers\.2"):
        initialise(deeper, InitConfig(checkpoint=str(start)), NAMES)


@pytest.mark.parametrize("part", ["vision", "text", "fusion"])
def test_other_heads_on_the_same_weights_are_refused(part, tmp_path):
    start, heads = checkpoint(tmp_path, toy_pretraining()), getattr(VIT, part).heads
    other = other_model(replace(VIT, **{part: replace(getattr(VIT, part), heads=2 * heads)}))
    with pytest.raises(UserError, match=rf"^init\.checkpoint: .*model\.{part}\.heads={heads}, the config {2 * heads}:"):
        initialise(other, InitConfig(checkpoint=str(start)), NAMES)


def test_a_checkpoint_of_another_image_size_is_resized_and_said_to_be(tmp_path):
    start = checkpoint(tmp_path, toy_pretraining())
    report = initialise(other_model(replace(VIT, image_size=48)), InitConfig(checkpoint=str(start)), NAMES)
    assert report.resized == ["vision.backbone.position"]
    assert "1 of them resized" in report.summary()


def test_a_teacher_goes_on_where_the_checkpoint_has_one(tmp_path):
    saved, fresh = toy_pretraining(TAUGHT), Pretraining(other_model(TAUGHT))
    saved.teacher.image_queue.fill_(0.5)
    report = initialise(fresh.model, InitConfig(checkpoint=str(checkpoint(tmp_path, saved))), NAMES, fresh.teacher)
    assert torch.equal(fresh.teacher.image_queue, saved.teacher.image_queue) and "teacher" in report.loaded


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not readable: EOFError"),
        (b"\x80", "not readable: "),
        ([1.0], "holds a list, not the state of a teacher"),
        ({"pointer": torch.zeros(1)}, "keys do not fit: .* missing: "),
    ],
)
def test_a_teacher_that_is_none_is_named(content, message, tmp_path):
    fresh = Pretraining(other_model(TAUGHT))
    start = checkpoint(tmp_path, toy_pretraining(TAUGHT))
    if isinstance(content, bytes):
        (start / "teacher.pt").write_bytes(content)
    else:
        torch.save(content, start / "teacher.pt")
    with pytest.raises(UserError, match=rf"teacher\.pt: {message}"):
        initialise(fresh.model, InitConfig(checkpoint=str(start)), NAMES, fresh.teacher)


def test_a_new_teacher_starts_as_the_students_copy():
    fresh = Pretraining(other_model(TAUGHT))
    with torch.no_grad():
        fresh.model.text.embeddings.word.weight.add_(1)
    report = initialise(fresh.model, InitConfig(vision="random", text="random"), [], fresh.teacher)
    word = fresh.model.text.embeddings.word.weight
    assert torch.equal(fresh.teacher.text.embeddings.word.weight, word)
    assert torch.equal(fresh.teacher.mlm_head.decoder.weight, word)
    assert report.loaded == [] and "from nowhere, at random" in report.summary()


def test_an_official_checkpoint_is_where_pretraining_with_relations_goes_on(tmp_path, shared, vectors):
    convert(
        Namespace(
            family="albef", source=shared / "parity/albef_small.pt", target=tmp_path / "albef", back=False,
            config=None, vocab=None, image_size=0, drop=[],
        )
    )  # fmt: skip
    official = vectors("albef_small")
    start = from_official(official["state_dict"], official["config"], "albef")
    step = Pretraining(RelVLM(replace(start.config, relations=True, mrc_hidden=8), 200, relations=3))
    init = InitConfig(checkpoint=str(tmp_path / "albef"))
    report = initialise(step.model, init, ["a", "b", "c"], step.teacher)
    assert all(name.startswith("mrc_head.") for name in report.new) and len(report.new) == 4
    assert torch.equal(step.teacher.image_queue, official["state_dict"]["image_queue"].T)
    assert torch.equal(step.model.text_projection.weight, start.text_projection.weight)
