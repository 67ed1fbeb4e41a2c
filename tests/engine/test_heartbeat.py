"""Files by which ranks know of each other."""

from dataclasses import replace

import pytest

from relvlm.engine import heartbeat, process
from relvlm.engine.heartbeat import ENDED, SIZE, Heartbeats, Neighbours, Sign
from relvlm.engine.process import Process


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


@pytest.mark.parametrize(
    ("last_words", "died"), [({}, True), ({"phase": ENDED}, False), ({"failure": "UserError: torn"}, False)]
)
def test_a_neighbour_of_this_host_that_dies_is_seen_at_once(beats, last_words, died, monkeypatch):
    living = {7: True, 8: True}
    monkeypatch.setattr(heartbeat, "is_alive", lambda process: living[process.pid])
    neighbours = Neighbours(beats, 0, 3)
    beats.first(Sign(1, replace(process.own(), pid=7)))
    beats.first(Sign(2, replace(process.own(), pid=8)))
    assert not neighbours.one_died() and not neighbours.one_died()
    beats.write(Sign(2, replace(process.own(), pid=8), **last_words))
    living[8] = False
    assert neighbours.one_died() == died


def test_a_rank_alone_has_no_neighbour_and_one_elsewhere_is_not_known(beats):
    beats.first(Sign(0, process.own()))
    beats.first(Sign(1, Process("elsewhere", "another boot", 1, "1")))
    for world_size in (1, 2):
        neighbours = Neighbours(beats, 0, world_size)
        assert not neighbours.one_died() and not neighbours.one_died()
