"""The worlds of a study: built where they are absent, refused where they are others."""

from dataclasses import replace

import pytest

from relvlm.data.shards.store import ShardSet
from relvlm.errors import UserError
from relvlm.study.plan import Related, World
from relvlm.study.worlds import build_worlds

FLAGS = ["--preset", "mini", "--images", "20", "--benchmark-pairs", "40", "--workers", "1"]


def test_a_world_is_built_once_and_another_in_its_place_refused(plan, tmp_path):
    out = tmp_path / "world"
    plan = replace(plan, worlds=[World(str(out), FLAGS)])
    build_worlds(plan)
    built = (out / "world.json").stat().st_mtime_ns
    build_worlds(plan)
    assert (out / "world.json").stat().st_mtime_ns == built
    other = replace(plan, worlds=[World(str(out), [*FLAGS, "--tail", "1", "--seed", "3"])])
    with pytest.raises(UserError, match=r"world: is another world: seed 0, not 3; tail 0.0, not 1.0 \(remove it"):
        build_worlds(other)


def test_a_fault_of_any_world_is_named_before_the_first_is_built(plan, tmp_path):
    faulty = World(str(tmp_path / "second"), [*FLAGS, "--graph-fraction", "0"])
    with pytest.raises(UserError, match=r"graph_fraction: 0\.0 is not"):
        build_worlds(replace(plan, worlds=[World(str(tmp_path / "first"), FLAGS), faulty]))
    assert not list(tmp_path.glob("*/world.json"))


def test_flags_that_no_world_has_are_refused(plan, tmp_path, capsys):
    with pytest.raises((SystemExit, UserError)):
        build_worlds(replace(plan, worlds=[World(str(tmp_path / "w"), ["--moons", "3"])]))
    assert not (tmp_path / "w").exists()


def test_relations_by_machine_are_made_once_of_a_world_of_the_plan(plan, tmp_path):
    world, out = tmp_path / "world", tmp_path / "by_boxes"
    flags = ["--replace", "--predicates", "left of", "right of"]
    plan = replace(plan, worlds=[World(str(world), FLAGS)], related=[Related(str(out), f"{world}/graphs", flags)])
    build_worlds(plan)
    related = [r for i in range(len(ShardSet(out))) for r in ShardSet(out).read(i).sample.relations]
    assert {r.provenance for r in related} == {"boxes"} and {r.predicate for r in related} <= set(flags)
    built = (out / "manifest.json").stat().st_mtime_ns
    build_worlds(plan)
    assert (out / "manifest.json").stat().st_mtime_ns == built
    with pytest.raises(UserError, match=r"by_boxes: is not what .*world/graphs and the flags would give"):
        build_worlds(replace(plan, related=[Related(str(out), f"{world}/graphs", [*flags, "--limit", "3"])]))
