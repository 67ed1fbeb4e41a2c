"""How many steps are one budget."""

from dataclasses import replace
from pathlib import Path

import pytest

from relvlm.config.load import load_config
from relvlm.config.schema import Config, LowResolutionConfig
from relvlm.plan.flops import Sizes, trained
from relvlm.plan.workload import workload
from relvlm.study.budget import cost_of, steps_of
from relvlm.study.plan import Budget


@pytest.fixture
def config(tmp_path: Path, pytestconfig: pytest.Config) -> Config:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(95))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "relations.txt").write_text("on\nunder\n")
    files = [f"data.{what}={tmp_path / what}.txt" for what in ("vocab", "relations")]
    return load_config(pytestconfig.rootpath / "configs/mini/rex_vlm.yaml", files)


def test_a_step_costs_the_mean_of_its_kinds_by_how_often_they_are_drawn(config):
    ratio = replace(config.data.ratio, captions=3, entities=1, mrc=0, vsg=0, joint=0)
    config = replace(config, data=replace(config.data, ratio=ratio))
    sizes = Sizes(config.model, words=100, relations=2)
    captions, entities = (
        sum(trained(sizes, [workload(config.data, kind)]).values()) for kind in ("captions", "entities")
    )
    found = cost_of(config)
    assert found.flops == pytest.approx(0.75 * captions + 0.25 * entities)
    assert found.images == 0.75 * config.data.batch.captions + 0.25 * config.data.batch.entities / 2


def test_each_budget_becomes_steps(config):
    cost = cost_of(config)
    assert steps_of(Budget("s", steps=7), config) == 7
    assert steps_of(Budget("i", images=10.4 * cost.images), config) == 10
    assert steps_of(Budget("f", tflop=12.6 * cost.flops / 1e12), config) == 13
    assert steps_of(Budget("f", tflop=1e-12), config) == 1


def test_small_images_cost_less_in_the_first_steps(config):
    low = replace(config, low_resolution=LowResolutionConfig(steps=6, image_size=16))
    cost, small = cost_of(low), cost_of(replace(config, model=replace(config.model, image_size=16)))
    assert cost.flops == cost_of(config).flops > small.flops
    assert cost.spent(10) == pytest.approx(6 * small.flops + 4 * cost.flops)
    assert cost.spent(5) == pytest.approx(5 * small.flops)
    for steps in (3, 6, 10):
        assert steps_of(Budget("f", tflop=cost.spent(steps) / 1e12), low) == steps


def test_a_share_of_a_budget_is_that_of_what_is_spent(config):
    """Not of the steps, the first of which are cheaper."""
    low = replace(config, low_resolution=LowResolutionConfig(steps=600, image_size=16))
    spent = cost_of(low).spent
    half = steps_of(Budget("f", tflop=spent(2000) / 1e12), low, share=0.5)
    assert spent(half) == pytest.approx(spent(2000) / 2, rel=1e-3)
