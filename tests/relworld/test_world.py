"""Sampled scenes and their siblings."""

from collections import Counter
from random import Random

import pytest
from support.worlds import FULL, MINI, fingerprint

from relvlm.relworld.config import WorldConfig, world_config
from relvlm.relworld.scene import Look, fact_held_out, facts
from relvlm.relworld.world import (
    NoScene,
    main_looks,
    main_relations,
    sample_looks,
    sample_predicate,
    sample_scene,
    sample_siblings,
)


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


@pytest.mark.parametrize("config", [FULL, MINI], ids=["full", "mini"])
def test_the_same_arguments_make_the_same_siblings_in_every_version(config: WorldConfig) -> None:
    rng = Random(0)
    made = [sample_siblings(config, rng, training=True) for _ in range(100)]
    assert (
        fingerprint([(s.things, s.actions, s.main, s.background) for pair in made for s in pair])
        == {5: "a3b8962a8106", 2: "9de80e6a97cc"}[config.max_objects]
    )


def test_a_quarter_of_the_looks_is_of_two_shapes_where_there_are_more() -> None:
    def share(shapes: int) -> float:
        config, rng = world_config("full", shapes=shapes), Random(0)
        return sum(len({look.shape for look in sample_looks(config, rng, 5)}) <= 2 for _ in range(400)) / 400

    assert 0.2 < share(10) < 0.3
    assert fingerprint(sample_looks(world_config("full", shapes=2), Random(0), 5)) == "2f0e9f0d8537"


def test_looks_avoid_the_kinds_they_are_told_to() -> None:
    config = world_config("full", shapes=2, colours=2, max_objects=3)
    taken = (Look("circle", "red"), Look("square", "red"))
    assert {look.colour for look in sample_looks(config, Random(0), 2, avoid=taken)} == {"green"}


@pytest.mark.parametrize(
    ("knobs", "actions"),
    [({}, 0.45), ({"predicates": ("pushing", "kicking")}, 1), ({"predicates": ("left of", "on")}, 0)],
)
def test_main_relations_are_actions_as_often_as_asked_for(knobs: dict[str, object], actions: float) -> None:
    config, rng = world_config("full", **knobs), Random(0)
    found = [sample_predicate(config, rng) in config.actions for _ in range(1000)]
    assert sum(found) / 1000 == pytest.approx(actions, abs=0.05)


def test_a_tail_makes_later_predicates_rare() -> None:
    config, rng = world_config("full", tail=1, action_share=0), Random(0)
    found = Counter(sample_predicate(config, rng) for _ in range(4000))
    first, second, last = (found[config.spatial[place]] for place in (0, 1, -1))
    assert first / second == pytest.approx(2, rel=0.15)
    assert first / last == pytest.approx(len(config.spatial), rel=0.35)


def test_looks_are_of_more_shapes_where_two_have_too_few_colours() -> None:
    config, rng = world_config("full", colours=2), Random(0)
    for _ in range(50):
        looks = sample_looks(config, rng, config.max_objects)
        assert len({look.kind for look in looks}) == config.max_objects
        assert sample_looks(config, rng, 1, avoid=looks)[0].kind not in {look.kind for look in looks}


@pytest.mark.parametrize("predicate", ["inside", "contains", "left of"])
def test_looks_go_to_the_main_subject_and_object_in_order(predicate: str) -> None:
    looks = (Look("circle", "red"), Look("square", "blue"), Look("star", "green"))
    scene = sample_scene(FULL, Random(0), training=False, predicate=predicate, looks=looks)
    assert main_looks(scene) == looks
    assert (scene.things[scene.main[0]].look, scene.things[scene.main[2]].look) == looks[:2]
    assert scene.main[1] == predicate


def test_what_cannot_be_is_no_scene() -> None:
    with pytest.raises(NoScene, match="no scene of 8 things with 'far from' after 400 tries"):
        sample_scene(
            world_config("mini", min_side=0.5, max_side=0.6), Random(0), training=False, predicate="far from", count=8
        )


def test_symmetric_relations_are_not_swapped() -> None:
    config = world_config("full", swapped_share=1.0, predicates=("near", "left of", "right of"))
    rng = Random(0)
    for _ in range(20):
        first, second = sample_siblings(config, rng, training=True)
        assert first.main[1] != "near" and main_looks(first)[:2] == main_looks(second)[1::-1]
