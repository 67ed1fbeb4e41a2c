"""Sampled scenes and their siblings."""

from collections import Counter
from random import Random

import pytest
from support.worlds import FULL, MINI

from relvlm.relworld.config import WorldConfig, world_config
from relvlm.relworld.scene import fact_held_out, facts
from relvlm.relworld.world import main_relations, sample_scene, sample_siblings


@pytest.mark.parametrize("config", [FULL, MINI], ids=["full", "mini"])
def test_siblings_share_their_labels_and_differ_in_their_relation(config: WorldConfig) -> None:
    rng = Random(3)
    for _ in range(40):
        a, b = sample_siblings(config, rng, training=True)
        assert Counter(t.look for t in a.things) == Counter(t.look for t in b.things)
        assert main_relations(config, a) != main_relations(config, b)


def test_a_swapped_sibling_differs_by_the_exchange_alone() -> None:
    config, rng = world_config("mini", swapped_share=1.0), Random(4)
    for _ in range(30):
        a, b = sample_siblings(config, rng, training=True)
        assert [t.box for t in a.things] == [t.box for t in b.things]
        assert a.actions == b.actions
        assert [t.look for t in a.things] == [t.look for t in reversed(b.things)]


def test_evaluation_may_show_held_out_combinations() -> None:
    rng = Random(1)
    shown = [sample_scene(MINI, rng, training=False) for _ in range(200)]
    assert any(fact_held_out(MINI, scene, fact) for scene in shown for fact in facts(MINI, scene))
