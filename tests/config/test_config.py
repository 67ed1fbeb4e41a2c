"""YAML and overrides to a typed config: what is wrong is named, what is right survives a round trip."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from relvlm.config.exact import exact, not_exact
from relvlm.config.schema import Config, ModelConfig, dump, load_config, model_config, parse, to_tree
from relvlm.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MINIMAL: dict[str, Any] = {
    "model": {"localisation": False, "relations": False},
    "data": {"captions": [{"path": "shards"}], "batch": {"captions": 4}, "ratio": {"captions": 1}},
}

SWIN = ["model.vision.kind=swin", "model.vision.patch_size=4"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path


def refusal(file: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(file, list(overrides))
    return str(caught.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_config_of_the_repository_loads(path):
    assert load_config(path).steps > 0


def test_there_are_configs_to_load():
    assert len(list(CONFIGS.glob("*/*.yaml"))) >= 12


def test_what_a_file_leaves_out_keeps_its_default(file):
    config = load_config(file)
    assert config.optim == Config().optim and config.model.vision == ModelConfig().vision
    assert config.data.captions[0].path == "shards" and config.data.captions[0].weight == 1.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.vison.width=3", "model.vison: unknown key (did you mean 'vision'?)"),
        ("stepps=3", "stepps: unknown key (did you mean 'steps'?)"),
        ("data.captions=[{pth: x}]", "data.captions[0].pth: unknown key (did you mean 'path'?)"),
        ("optim.zzz=3", "optim.zzz: unknown key (known: lr, betas,"),
        ("steps=1.5", "steps: expected int, found 1.5"),
        ("steps=true", "steps: expected int, found True"),
        ("steps=", "steps: expected int, found ''"),
        ("checkpoint.resume=1", "checkpoint.resume: expected bool, found 1"),
        ("optim.lr=fast", "optim.lr: expected float, found 'fast'"),
        ("optim.lr=true", "optim.lr: expected float, found True"),
        ("name=3", "name: expected str, found 3"),
        ("optim.betas=0.9", "optim.betas: expected a list, found 0.9"),
        ("optim.betas=[0.9, x]", "optim.betas[1]: expected float, found 'x'"),
        ("model.vision=swin", "model.vision: expected a section, found 'swin'"),
        ("model.vision.kind=resnet", "model.vision.kind: 'resnet' is none of 'vit', 'swin'"),
        ("dtype=fp16", "dtype: 'fp16' is none of 'fp32', 'bf16'"),
    ],
)
def test_a_wrong_key_or_type_is_named_with_its_file(file, override, message):
    assert refusal(file, override).startswith(f"{file}: {message}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "steps: an override reads dotted.key=value"),
        ("data.captions=[{path: x}", "data.captions=[{path: x}: not a YAML value"),
        ("data.captions.path=x", "captions is a value, not a section"),
    ],
)
def test_an_override_that_cannot_be_read_is_named(file, override, message):
    assert message in refusal(file, override)


def test_overrides_have_the_last_word(file):
    lists = ["data.captions=[{path: a, weight: 2}, {path: b}]", "optim.betas=[0.8, 1]"]
    config = load_config(file, ["optim.lr=1e-4", "steps=7", "steps=8", "data.vocab=", "name=a=b", *lists])
    assert config.optim.lr == 1e-4 and config.optim.betas == [0.8, 1.0]
    assert (config.steps, config.data.vocab, config.name) == (8, "", "a=b")
    assert [(d.path, d.weight) for d in config.data.captions] == [("a", 2.0), ("b", 1.0)]
    assert type(config.optim.betas[1]) is float and type(config.data.captions[0].weight) is float


def test_an_override_of_one_key_leaves_its_neighbours(file):
    config = load_config(file, ["data.batch.vsg=3"])
    assert (config.data.batch.captions, config.data.batch.vsg) == (4, 3)


def test_a_file_holds_what_differs_from_its_base(file, tmp_path):
    child = tmp_path / "deeper" / "child.yaml"
    child.parent.mkdir()
    child.write_text("base: ../run.yaml\ndata: {batch: {captions: 9}, captions: [{path: other}]}\n")
    config = load_config(child)
    assert config.data.batch.captions == 9 and config.data.ratio.captions == 1
    assert [d.path for d in config.data.captions] == ["other"]
    assert not config.model.relations


def test_a_base_that_is_missing_or_circular_is_named(file):
    file.write_text("base: gone.yaml\n")
    assert str(file.parent / "gone.yaml") in refusal(file)
    file.write_text("base: run.yaml\n")
    assert "base" in refusal(file)


@pytest.mark.parametrize("text", ["[1, 2]", "model: [", "just words"])
def test_a_file_that_is_no_config_is_named(file, text):
    file.write_text(text)
    assert str(file) in refusal(file)


def test_an_empty_file_says_that_there_is_nothing_to_train_on(file):
    file.write_text("")
    assert "nothing to train on" in refusal(file)


def test_a_missing_file_is_named(tmp_path):
    assert "no such config file" in refusal(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_dumped_config_loads_as_the_same(path, tmp_path):
    config = load_config(path)
    dump(config, tmp_path / "dump.yaml")
    assert load_config(tmp_path / "dump.yaml") == config


def test_the_model_section_survives_a_checkpoint_description(file):
    config = load_config(file, ["model.vision.depths=[1, 2]", "model.momentum.queue=8"])
    assert model_config(to_tree(config)["model"]) == config.model
    with pytest.raises(UserError, match=r"model\.json: model\.embed: unknown key"):
        model_config({"embed": 3})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.vision.heads=7"], "model.vision.heads: 7 does not divide the width 768"),
        (["model.text.heads=5"], "model.text.heads: 5 does not divide the width 768"),
        (["model.fusion.heads=5"], "model.fusion.heads: 5 does not divide the width 768"),
        (["model.image_size=225"], "model.image_size: 225 is no multiple of patch_size 16"),
        (["data.ratio.captions=0"], "data.ratio: every kind is 0"),
        (["data.captions=[]"], "data.captions: empty, but data.ratio.captions draws from it"),
        (["data.batch.captions=0"], "data.batch.captions: must be positive"),
        (["data.ratio.vsg=1"], "data.graphs: empty, but data.ratio.vsg draws from it"),
        (
            ["data.ratio.entities=1", "data.batch.entities=2", "data.entities=[{path: x}]"],
            "model.localisation: false, but data.ratio.entities draws",
        ),
        (
            ["data.ratio.mrc=1", "data.batch.mrc=2", "data.graphs=[{path: x}]"],
            "model.relations: false, but data.ratio.mrc draws",
        ),
        (["data.joint_weights.vsg=-1"], "data.joint_weights.vsg: -1.0: must not be negative"),
        (
            ["data.ratio.joint=1", "data.batch.joint=2"],
            "data.joint: empty, but data.ratio.joint draws from it",
        ),
        (
            ["data.ratio.joint=1", "data.batch.joint=2", "data.joint=[{path: x}]"],
            "model.localisation: false, but data.joint_weights.entities draws",
        ),
        (["model.vision.patch_keep=0.0"], "model.vision.patch_keep: 0.0: must be above 0 and at most 1"),
        (["model.vision.patch_keep=1.5"], "model.vision.patch_keep: 1.5: must be above 0 and at most 1"),
        ([*SWIN, "model.vision.patch_keep=0.5"], "model.vision.patch_keep: needs a ViT"),
        ([*SWIN, "low_resolution={steps: 5, image_size: 112}"], "low_resolution.steps: needs a ViT"),
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
        (["low_resolution.steps=-1"], "low_resolution.steps: -1: must be within"),
        (["optim.betas=[0.9]"], "optim.betas: expected two numbers, found [0.9]"),
        (["optim.lr=0"], "optim.lr: 0.0: must be positive"),
        (["log_every=0"], "log_every: 0: must be positive"),
        (["checkpoint.every=0"], "checkpoint.every: 0: must be positive"),
        (["steps=-1"], "steps: -1: must be positive"),
        (["accumulate=0"], "accumulate: 0: must be positive"),
        (
            ["model.text.max_positions=20"],
            "model.text.max_positions: 20 is less than data.max_text_tokens 36",
        ),
        (
            [
                "data.ratio.vsg=1",
                "data.batch.vsg=2",
                "data.graphs=[{path: x}]",
                "model.text.max_positions=40",
            ],
            "model.text.max_positions: 40 is less than data.max_vsg_tokens 112",
        ),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(file, overrides, message):
    assert refusal(file, *overrides).startswith(f"{file}: {message}")


def test_options_that_are_not_exact_are_named_so_each_alone(file):
    both = ["model.vision.patch_keep=0.5", "low_resolution={steps: 1000, image_size: 160}", "steps=5000"]
    config, plain = load_config(file, both), load_config(file, ["steps=5000"])
    found = not_exact(config)
    assert list(found) == [
        "model.vision.patch_keep: 0.5 (not exact)",
        "low_resolution: 1,000 steps at 160 px (not exact)",
    ]
    assert list(found.values()) == [load_config(file, [option, "steps=5000"]) for option in both[:2]]
    assert exact(config) == plain and not_exact(plain) == {}


def test_a_tree_without_a_file_is_parsed_too():
    assert parse(MINIMAL, "made").data.batch.captions == 4
    with pytest.raises(UserError, match="made: steps"):
        parse(MINIMAL | {"steps": "many"}, "made")
