"""Files and overrides to a typed config: the repository's load, and what is dumped loads as the same."""

from pathlib import Path

import pytest
import yaml

from relvlm.config.load import dump, load_config, model_config, parse, to_tree
from relvlm.config.schema import Config, ModelConfig
from relvlm.data.batches.pools import check_ranks
from relvlm.errors import UserError

FOLDERS = ("13m", "3m", "mini", "official", "tune")  # studies are plans, not configs
CONFIGS = sorted(p for f in FOLDERS for p in (Path(__file__).resolve().parents[2] / "configs" / f).glob("*.yaml"))
every_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")


@every_config
def test_every_config_of_the_repository_loads(path):
    assert load_config(path).steps > 0


@every_config
def test_every_config_of_the_repository_can_be_shared_by_gpus(path):
    config = load_config(path)
    check_ranks(config.data, 1, config.accumulate)
    if path.parent.name == "official":  # by as many as its authors had
        check_ranks(config.data, {"xvlm_16m": 24}.get(path.stem, 8))


def test_there_are_configs_to_load():
    assert len(CONFIGS) >= 12


def test_what_a_file_leaves_out_keeps_its_default(file):
    config = load_config(file)
    assert config.optim == Config().optim and config.model.vision == ModelConfig().vision
    assert config.data.captions[0].path == "shards" and config.data.captions[0].weight == 1.0


def test_overrides_have_the_last_word(file):
    lists = ["data.captions=[{path: a, weight: 2}, {path: b}]", "optim.betas=[0.8, 0]"]
    config = load_config(file, ["optim.lr=1e-4", "steps=7", "steps=8", "name=a=b", *lists])
    assert config.optim.lr == 1e-4 and config.optim.betas == [0.8, 0.0]
    assert (config.steps, config.name) == (8, "a=b")
    assert [(d.path, d.weight) for d in config.data.captions] == [("a", 2.0), ("b", 1.0)]
    assert type(config.optim.betas[1]) is float and type(config.data.captions[0].weight) is float


def test_an_override_of_one_key_leaves_its_neighbours(file):
    config = load_config(file, ["data.batch.vsg=3"])
    assert (config.data.batch.captions, config.data.batch.vsg) == (4, 3)


@every_config
def test_a_dumped_config_loads_as_the_same(path, tmp_path):
    config = load_config(path)
    dump(config, tmp_path / "dump.yaml")
    assert load_config(tmp_path / "dump.yaml") == config


def test_a_dump_keeps_the_order_of_the_fields(file, tmp_path):
    dump(load_config(file), tmp_path / "dump.yaml")
    assert list(yaml.safe_load((tmp_path / "dump.yaml").read_text()))[:2] == ["name", "out"]


@pytest.mark.parametrize("overrides", [["model.vision.layers=3"], ["model.vision={kind: swin, heads: [4, 4, 8, 8]}"]])
def test_the_model_section_survives_a_checkpoint_description(file, overrides):
    config = load_config(file, [*overrides, "model.momentum.queue=8"])
    assert model_config(to_tree(config)["model"]) == config.model


def test_a_wrong_checkpoint_description_is_named():
    with pytest.raises(UserError, match=r"^config\.json: model\.embed: unknown key"):
        model_config({"embed": 3})
    with pytest.raises(UserError, match=r"^there: model\.embed_dim: expected int"):
        model_config({"embed_dim": "x"}, "there")


def test_a_tree_without_a_file_is_parsed_too(file):
    tree = yaml.safe_load(file.read_text())
    assert parse(tree, "made").data.batch.captions == 4
    with pytest.raises(UserError, match=r"^made: steps: expected int"):
        parse(tree | {"steps": "many"}, "made")


def test_what_does_not_fit_together_is_refused_by_name(refusal):
    assert refusal("steps=0") == "steps: 0: must be at least 1 and at most 9,999,999"


def test_fields_that_do_not_go_together_are_refused_where_each_is_right_by_itself(file):
    with pytest.raises(UserError, match=r"model\.text\.heads: 5 does not divide"):
        load_config(file, ["model.text.heads=5"])
