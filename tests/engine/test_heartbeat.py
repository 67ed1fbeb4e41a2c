"""Files by which ranks know of each other."""

from dataclasses import replace

import pytest

from relvlm.engine import heartbeat, process
from relvlm.engine.heartbeat import SIZE, Heartbeats, Sign


@pytest.fixture
def beats(tmp_path) -> Heartbeats:
    return Heartbeats(tmp_path, heartbeat.begin(tmp_path, "000002"))


def test_what_a_rank_says_is_read_by_the_others(beats):
    said = Sign(3, process.own(), 7, 812, "forward", 1.5, "loader worker 0", "of nothing")
    beats.first(Sign(3, process.own()))
    beats.write(said)
    read = beats.read(3)
    assert read is not None and replace(read, at=0.0) == said and read.at > 0


def test_a_rank_that_has_said_nothing_or_half_of_it_is_none(beats):
    assert beats.read(0) is None
    beats.path(0).write_bytes(b'{"rank": 0, "pro')
    assert beats.read(0) is None


def test_a_file_takes_no_more_room_than_at_first_whatever_is_said(beats):
    beats.first(Sign(0, process.own()))
    for failure in ("é" * 10_000, "short"):
        beats.write(Sign(0, process.own(), failure=failure))
        assert beats.path(0).stat().st_size == SIZE
    assert beats.read(0).failure == "short"


def test_a_later_start_removes_the_earlier_ones_files(beats, tmp_path):
    beats.first(Sign(0, process.own()))
    heartbeat.begin(tmp_path, "000003")
    with pytest.raises(FileNotFoundError):
        beats.write(Sign(0, process.own()))
    assert [path.name for path in (tmp_path / "heartbeats").iterdir()] == ["000003"]


def test_one_rank_is_the_first_to_see_trouble(beats):
    assert [beats.claim(rank) for rank in range(3)] == [True, False, False]


def test_where_the_disk_fails_every_rank_looks_for_the_cause(tmp_path):
    assert Heartbeats(tmp_path / "gone", "1").claim(0)
