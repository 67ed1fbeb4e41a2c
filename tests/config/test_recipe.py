"""What runs must share to be seeds of one model."""

from pathlib import Path

import pytest
import yaml

from relvlm.config.load import load_config, to_tree, to_yaml
from relvlm.config.recipe import A_PATH, other_key, recipe_of

MINI = Path(__file__).resolve().parents[2] / "configs/mini/rex_vlm.yaml"


@pytest.fixture
def recipe():
    return lambda *overrides: recipe_of(to_tree(load_config(MINI, list(overrides))))


@pytest.mark.parametrize(
    "same",
    ["seed=3", "out=elsewhere", "log_every=1", "checkpoint.keep=9", "eval.limit=4", "data.vocab=other/vocab.txt"],
)
def test_seeds_of_one_model_may_differ_in(same, recipe):
    assert recipe(same) == recipe()


@pytest.mark.parametrize(
    ("other", "where"),
    [
        ("optim.lr=1e-3", "optim.lr: 0.002 and 0.001"),
        ("optim.clip_norm=0", "optim.clip_norm: 'the default' and 0.0"),
        ("data.flip=0", "data.flip: 0.5 and 'the default'"),
        ("init={vision: vit.pt, text: random}", f"init.vision: 'random' and '{A_PATH}'"),
        ("data.captions=[{path: a}, {path: b}]", f"data.captions[1].path: 'the default' and '{A_PATH}'"),
    ],
)
def test_another_model_is_one_that_sets(other, where, recipe):
    assert other_key(recipe(), recipe(other)) == where


def test_a_run_s_config_file_says_the_same(recipe):
    assert recipe_of(yaml.safe_load(to_yaml(load_config(MINI)))) == recipe()
    assert recipe_of({"of": {"another": {"version": 3}}}) == {"of.another.version": 3}
