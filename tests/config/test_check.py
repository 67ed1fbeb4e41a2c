"""Fields that do not fit together are refused, on each side of the edge."""

from dataclasses import replace

import pytest

from relvlm.config.check import problems, remarks
from relvlm.config.load import load_config
from relvlm.config.schema import DataConfig, MomentumConfig
from relvlm.errors import UserError

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
        (["model.text.heads=5"], "model.text.heads: 5 does not divide the width 768"),
        (["model.fusion.heads=5"], "model.fusion.heads: 5 does not divide the width 768"),
        ([SWIN, "model.vision.heads=[3, 4]"], "model.vision.heads[0]: 3 does not divide the width 32"),
        ([SWIN, "model.vision.heads=[2, 3]"], "model.vision.heads[1]: 3 does not divide the width 64"),
        (
            [SWIN, "model.vision.heads=[2]"],
            "model.vision.heads: [2]: one number for each stage of depths [1, 1]",
        ),
        (["model.image_size=225"], "model.image_size: 225 is no multiple of patch_size 16"),
        ([SWIN, "model.image_size=222"], "model.image_size: 222 is no multiple of patch_size 4"),
        ([SWIN, "model.image_size=220"], "model.image_size: 220: stage 0 of the Swin has 55 patches a side, no"),
        (
            [SWIN, "model.image_size=196"],
            "model.image_size: 196: stage 0 of the Swin has 49 patches a side, which",
        ),
        (["model.text.mlp_ratio=0.0001"], "model.text.mlp_ratio: 0.0001: leaves no channel of the width 768"),
        (["data.captions=[{path: x, weight: 0}]"], "data.captions: every weight is 0, but data.ratio.captions draws"),
        (["data.max_text_tokens=2"], "data.max_text_tokens: 2: with data.sep, a word needs 3"),
        (["resume.accept=[optim.l]"], "resume.accept[0]: 'optim.l' is no key of a config (did you mean 'optim.lr'?)"),
        (["loggers=[wandb, wandv]"], "loggers[1]: 'wandv' is none of wandb, trackio"),
        ([SWIN, LATE], "model.fusion.region_mask: late_vision needs a ViT"),
        ([LATE, "model.vision.late_blocks=0"], "model.vision.late_blocks: 0: must be within the 12 layers"),
        ([LATE, "model.vision.late_blocks=13"], "model.vision.late_blocks: 13: must be within the 12 layers"),
        (["model.temperature=0.51"], "model.temperature: 0.51: training keeps it from 0.001 to 0.5"),
        (["model.temperature=0.0009"], "model.temperature: 0.0009: training keeps it from 0.001 to 0.5"),
        (["data.ratio.captions=0"], "data.ratio: every kind is 0"),
        (["data.captions=[]"], "data.captions: empty, but data.ratio.captions draws from it"),
        (
            ["data.captions=[{path: x}, {path: y, block: 4}]", "data.negative_pool.captions=3"],
            "data.negative_pool.captions: 3: must hold a block of data.captions[1], which has 4 images",
        ),
        (["data.batch.captions=0"], "data.batch.captions: must be positive, data.ratio.captions draws it"),
        (
            [*drawing("entities"), "data.regions_per_image=3"],
            "data.batch.entities: 4 regions are no multiple of data.regions_per_image 3",
        ),
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
            ["low_resolution.steps=5"],
            "low_resolution.image_size: 0: must be a multiple of patch_size 16 below",
        ),
        (["low_resolution.steps=200000"], "low_resolution.steps: 200000: must be within the 200000 steps"),
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
        ["model.temperature=0.5"],
        ["model.temperature=0.001"],
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
        [SWIN, "model.image_size=56"],
        [SWIN, "model.vision.window=1000", "model.image_size=200"],
        ["data.captions=[{path: x, weight: 0}, {path: y}]"],
        ["data.max_text_tokens=3"],
        ["data.max_text_tokens=2", "data.sep=false"],
        ["resume.accept=[optim.lr, data, 'data.captions[0].path', data.captions]"],
        [*drawing("vsg"), "model.text.max_positions=112"],
        ["data.captions=[{path: x, block: 4}]", "data.negative_pool={captions: 4, vsg: 1}"],
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


def test_everything_that_is_wrong_is_said_at_once_and_nothing_twice(file):
    wrong = ["steps=0", "stepps=1", "model.vision.heads=7", "model.text.width=x", "data.flip=2", "optim.betas=[2, .5]"]
    with pytest.raises(UserError) as caught:
        load_config(file, wrong)
    found = [line.removeprefix(f"{file}: ").split(":")[0] for line in str(caught.value).splitlines()]
    assert sorted(found) == ["data.flip", "model.text.width", "model.vision.heads", "optim.betas[0]", "stepps", "steps"]


def test_a_config_that_draws_nothing_has_one_problem(file):
    config = load_config(file, ["model.momentum={enabled: true, queue: 4}"])
    nothing = replace(config, data=DataConfig(), model=replace(config.model, momentum=MomentumConfig(True, queue=1)))
    assert list(problems(nothing)) == ["data.ratio: every kind is 0, there is nothing to train on"]


@pytest.mark.parametrize(("steps", "odd"), [(5000, True), (5001, False)])
def test_a_run_that_ends_within_its_warm_up_is_remarked_on(file, steps, odd):
    found = list(remarks(load_config(file, [f"steps={steps}"])))
    assert found == ([f"optim.warmup_steps: 5000: the run ends after {steps} steps, before optim.lr is reached"] * odd)


@pytest.mark.parametrize(
    ("optim", "said"),
    [
        ({"lr": 1e-5, "final_lr": 1e-5, "warmup_lr": 1e-5}, []),
        ({"lr": 5e-6, "final_lr": 1e-5}, ["optim.final_lr: 1e-05: above optim.lr, 5e-06: the rate rises to it"]),
        ({"lr": 5e-6, "final_lr": 1e-5, "decay": "constant"}, []),
        ({"lr": 5e-6, "warmup_lr": 1e-5}, ["optim.warmup_lr: 1e-05: above optim.lr, 5e-06: the rate falls from it"]),
        ({"lr": 5e-6, "warmup_lr": 1e-5, "warmup_steps": 0}, []),
    ],
)
def test_a_rate_that_goes_the_other_way_is_worth_a_word(file, optim, said):
    assert list(remarks(load_config(file, [f"optim.{key}={value}" for key, value in optim.items()]))) == said
