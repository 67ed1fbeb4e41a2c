"""Fields that do not fit together are refused, on each side of the edge."""

from dataclasses import replace

import pytest

from relvlm.config.check import problems
from relvlm.config.load import load_config
from relvlm.config.schema import DataConfig, MomentumConfig

SWIN = "model.vision={kind: swin, width: 32, depths: [1, 1], heads: [2, 4]}"
LATE = "model.fusion.region_mask=late_vision"


def drawing(kind: str, batch: int = 4) -> list[str]:
    """Overrides that draw batches of this kind alone."""
    section = "graphs" if kind in ("mrc", "vsg") else kind
    parts = [f"data.{section}=[{{path: x}}]", f"data.batch.{kind}={batch}", f"data.ratio={{{kind}: 1}}"]
    return [*parts, "model.localisation=true", "model.relations=true"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.vision.heads=7"], "model.vision.heads: 7 does not divide the width 768"),
        (["model.vision.heads=0"], "model.vision.heads: 0 does not divide the width 768"),
        (["model.text.heads=5"], "model.text.heads: 5 does not divide the width 768"),
        (["model.fusion.heads=5"], "model.fusion.heads: 5 does not divide the width 768"),
        ([SWIN, "model.vision.heads=[3, 4]"], "model.vision.heads[0]: 3 does not divide the width 32"),
        ([SWIN, "model.vision.heads=[2, 3]"], "model.vision.heads[1]: 3 does not divide the width 64"),
        ([SWIN, "model.vision.heads=[2, 0]"], "model.vision.heads[1]: 0 does not divide the width 64"),
        (
            [SWIN, "model.vision.heads=[2]"],
            "model.vision.heads: [2]: one number for each stage of depths [1, 1]",
        ),
        (["model.image_size=225"], "model.image_size: 225 is no multiple of patch_size 16"),
        ([SWIN, "model.image_size=222"], "model.image_size: 222 is no multiple of patch_size 4"),
        ([SWIN, LATE], "model.fusion.region_mask: late_vision needs a ViT"),
        ([LATE, "model.vision.late_blocks=0"], "model.vision.late_blocks: 0: must be within the 12 layers"),
        ([LATE, "model.vision.late_blocks=13"], "model.vision.late_blocks: 13: must be within the 12 layers"),
        (["model.vision.patch_keep=0.0"], "model.vision.patch_keep: 0.0: must be above 0 and at most 1"),
        (["model.vision.patch_keep=1.5"], "model.vision.patch_keep: 1.5: must be above 0 and at most 1"),
        (["data.ratio.captions=0"], "data.ratio: every kind is 0"),
        (["data.captions=[]"], "data.captions: empty, but data.ratio.captions draws from it"),
        (["data.batch.captions=0"], "data.batch.captions: must be positive, data.ratio.captions draws it"),
        (["data.ratio.vsg=1"], "data.graphs: empty, but data.ratio.vsg draws from it"),
        (["data.ratio.mrc=1"], "data.graphs: empty, but data.ratio.mrc draws from it"),
        (["data.ratio.joint=1"], "data.joint: empty, but data.ratio.joint draws from it"),
        (
            [*drawing("entities"), "model.localisation=false"],
            "model.localisation: false, but data.ratio.entities draws entities batches",
        ),
        (
            [*drawing("mrc"), "model.relations=false"],
            "model.relations: false, but data.ratio.mrc draws mrc batches",
        ),
        (
            [*drawing("joint"), "model.localisation=false"],
            "model.localisation: false, but data.joint_weights.entities draws entities batches",
        ),
        (["data.joint_weights.vsg=-0.01"], "data.joint_weights.vsg: -0.01: must not be negative"),
        (["data.joint_weights.vsg=-1"], "data.joint_weights.vsg: -1.0: must not be negative"),
        (["data.joint_weights.vsg=.inf"], "data.joint_weights.vsg: inf: must not be negative"),
        (
            [*drawing("joint"), "data.joint_weights={captions: 0, entities: 0, mrc: 0, vsg: 0}"],
            "data.joint_weights: every kind is 0",
        ),
        ([SWIN, "low_resolution={steps: 5, image_size: 112}"], "low_resolution.steps: needs a ViT"),
        (
            ["low_resolution={steps: 5, image_size: 120}"],
            "low_resolution.image_size: 120: must be a multiple",
        ),
        (
            ["low_resolution={steps: 5, image_size: 224}"],
            "low_resolution.image_size: 224: must be a multiple",
        ),
        (
            ["low_resolution={steps: 5, image_size: -16}"],
            "low_resolution.image_size: -16: must be a multiple",
        ),
        (
            ["low_resolution.steps=5"],
            "low_resolution.image_size: 0: must be a multiple of patch_size 16 below",
        ),
        (["low_resolution.steps=200000"], "low_resolution.steps: 200000: must be within the 200000 steps"),
        (["low_resolution.steps=-1"], "low_resolution.steps: -1: must be within"),
        (["optim.betas=[0.9]"], "optim.betas: expected two numbers, found [0.9]"),
        (["optim.lr=0"], "optim.lr: 0.0: must be positive"),
        (["optim.lr=.inf"], "optim.lr: inf: must be positive"),
        (["log_every=0"], "log_every: 0: must be positive"),
        (["checkpoint.every=0"], "checkpoint.every: 0: must be positive"),
        (["steps=0"], "steps: 0: must be positive"),
        (["accumulate=0"], "accumulate: 0: must be positive"),
        (
            ["model.text.max_positions=35"],
            "model.text.max_positions: 35 is less than data.max_text_tokens 36",
        ),
        (
            [*drawing("vsg"), "model.text.max_positions=111"],
            "model.text.max_positions: 111 is less than data.max_vsg_tokens 112",
        ),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(refusal, overrides, message):
    assert refusal(*overrides).startswith(message)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.vision.heads=1"],
        [SWIN],
        [SWIN, "model.vision.heads=[1, 64]", "model.image_size=224"],
        [LATE, "model.vision.late_blocks=1"],
        [LATE, "model.vision.late_blocks=12"],
        ["model.vision.late_blocks=13"],
        ["model.vision.patch_keep=0.01"],
        ["data.joint_weights={captions: 0, entities: 0, mrc: 0, vsg: 0}"],
        [*drawing("mrc"), "model.localisation=false"],
        [*drawing("joint"), "data.joint_weights.entities=0", "model.localisation=false"],
        ["low_resolution={steps: 199999, image_size: 208}"],
        ["low_resolution={steps: 1, image_size: 16}"],
        ["low_resolution={image_size: 7}"],
        ["steps=1", "accumulate=1", "log_every=1", "checkpoint.every=1", "optim.lr=1e-9"],
        ["model.text.max_positions=36"],
        [*drawing("vsg"), "model.text.max_positions=112"],
    ],
)
def test_fields_that_just_fit_are_taken(file, overrides):
    assert load_config(file, overrides)


@pytest.mark.parametrize(
    ("kind", "batch", "more", "groups"),
    [
        ("captions", 24, [], 24),
        ("vsg", 24, [], 24),
        ("entities", 20, [], 25),  # regions, and a caption for each of 5 images
        ("entities", 16, ["data.regions_per_image=2"], 24),
        ("joint", 3, [], 21),  # an image: caption, VSG text, 4 regions and their image's caption
        ("joint", 4, ["data.joint_weights.vsg=0"], 24),
        ("joint", 4, ["data.joint_weights.captions=0"], 24),
        ("joint", 12, ["data.joint_weights.entities=0"], 24),
    ],
)
def test_a_queue_holds_the_largest_batch(file, refusal, kind, batch, more, groups):
    queue = "model.momentum={{enabled: true, queue: {}}}".format
    assert load_config(file, [*drawing(kind, batch), *more, queue(groups)])
    found = refusal(*drawing(kind, batch), *more, queue(groups - 1))
    assert found == f"model.momentum.queue: {groups - 1} holds less than one batch of {groups}"


def test_mrc_brings_nothing_to_the_queue(file):
    assert load_config(file, [*drawing("mrc", 99), "model.momentum={enabled: true, queue: 1}"])


def test_a_queue_without_a_teacher_is_no_matter(file):
    assert load_config(file, ["model.momentum={enabled: false, queue: 1}"])


def test_all_problems_are_found(file):
    config = load_config(file)
    object.__setattr__(config, "steps", 0)
    object.__setattr__(config, "log_every", 0)
    found = list(problems(config))
    assert [line.split(":")[0] for line in found][:2] == ["steps", "log_every"]


def test_a_config_that_draws_nothing_has_one_problem(file):
    config = load_config(file, ["model.momentum={enabled: true, queue: 4}"])
    nothing = replace(config, data=DataConfig(), model=replace(config.model, momentum=MomentumConfig(True, queue=0)))
    assert list(problems(nothing)) == ["data.ratio: every kind is 0, there is nothing to train on"]
