"""The pictures of the benchmarks, and the pairs of them that a row compares."""

from random import Random

import pytest
from PIL import Image
from support.worlds import FULL, MINI, fingerprint, scenes

from relvlm.relworld.bank import Bank, collect, false_predicates, open_facts, pair_looks, twins
from relvlm.relworld.config import WorldConfig, is_held_out, world_config
from relvlm.relworld.lexicon import PREDICATES
from relvlm.relworld.scene import truth


def test_ids_run_on_and_name_the_pictures(tmp_path) -> None:
    bank = Bank(MINI, 0)
    assert [bank.add(scene) for scene in scenes(MINI, 3)] == [1_000_001, 1_000_002, 1_000_003]
    written = []
    bank.write(tmp_path / "images", lambda: written.append(1))
    assert sorted(p.name for p in (tmp_path / "images").iterdir()) == [f"100000{n}.jpg" for n in (1, 2, 3)]
    assert len(written) == 3
    assert Image.open(tmp_path / "images" / "1000001.jpg").size == (32, 32)


def test_a_quarter_of_the_pairs_is_held_out() -> None:
    rng = Random(0)
    found = [pair_looks(MINI, rng, "left of", 2) for _ in range(1000)]
    share = sum(is_held_out(MINI, a.kind, "left of", b.kind) for a, b in found) / 1000
    assert 0.25 < share < 0.4  # and a tenth of the others by chance
    assert fingerprint(found) == "058018a05d0f"


def test_nothing_is_held_out_where_no_combination_is() -> None:
    config = world_config("mini", held_out_share=0.0)
    assert all(len(pair_looks(config, Random(seed), "left of", 2)) == 2 for seed in range(20))


@pytest.mark.parametrize("config", [FULL, MINI], ids=["full", "mini"])
def test_twins_are_each_true_of_their_own_picture_alone(config: WorldConfig) -> None:
    rng, made, inverses = Random(0), [], 0
    for _ in range(60):
        a, first, b, second = twins(config, rng, config.predicates)
        made.append((a.things, first, b.things, second))
        for scene, right, wrong in ((a, first, second), (b, second, first)):
            i, _, j = scene.main
            assert truth(scene, i, right, j) is True and truth(scene, i, wrong, j) is False
        assert a.background == b.background
        inverses += PREDICATES[first].inverse == second
    assert 15 < inverses < 45
    assert fingerprint(made) == {5: "40055b2b7824", 2: "e825e6f0d99d"}[config.max_objects]


def test_predicates_are_true_or_false_of_a_fact_and_among_those_asked_for() -> None:
    for scene in scenes(FULL, 20):
        for fact in open_facts(FULL, scene, FULL.spatial):
            assert fact[1] in FULL.spatial and truth(scene, *fact) is True
            wrong = false_predicates(scene, fact, FULL.spatial)
            assert wrong == [p for p in FULL.spatial if truth(scene, fact[0], p, fact[2]) is False]


def test_collecting_stops_when_it_has_enough_or_has_tried_enough() -> None:
    calls = iter(range(100))

    def odd() -> dict[str, int] | None:
        n = next(calls)
        return {"n": n} if n % 2 else None

    assert collect(2, 50, odd) == [{"n": 1}, {"n": 3}]
    assert next(calls) == 4
    assert collect(9, 4, odd) == [{"n": 5}, {"n": 7}]
    assert next(calls) == 9
