"""The worlds of a study: built where they are absent, refused where they are others."""

from dataclasses import replace

import pytest

from relvlm.errors import UserError
from relvlm.study.plan import World
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


def test_flags_that_no_world_has_are_refused(plan, tmp_path, capsys):
    with pytest.raises((SystemExit, UserError)):
        build_worlds(replace(plan, worlds=[World(str(tmp_path / "w"), ["--moons", "3"])]))
    assert not (tmp_path / "w").exists()
