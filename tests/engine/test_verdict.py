"""One cause from what all ranks say."""

from dataclasses import replace

import pytest

from relvlm.engine.heartbeat import Sign
from relvlm.engine.process import Process
from relvlm.engine.verdict import Cause, cause_of, listing

ELSEWHERE = Process("gpu7", "another boot", 70, "1")  # of which nothing is known here
AT = "rank 0 is in step 812 (backward)"
LIVE = [Sign(rank, replace(ELSEWHERE, pid=70 + rank), 5, 812, "backward", 95.0, at=1000.0) for rank in range(3)]


def verdict(*after: Sign | None, silent: tuple[int, ...] = (), error: str = "") -> Cause:
    """Every rank has beaten between the two looks but the `silent` ones."""
    before = [sign if sign is None or sign.rank in silent else replace(sign, beat=sign.beat - 3) for sign in after]
    return cause_of(before, after, error)


def changed(rank: int, **values: object) -> list[Sign]:
    return [replace(sign, **values) if sign.rank == rank else sign for sign in LIVE]


def test_a_rank_that_says_nothing_is_named_with_its_last_step():
    found = verdict(*changed(1, phase="forward", at=869.0), silent=(1,))
    assert found == Cause("rank 1 on gpu7 (pid 71) has said nothing since step 812 (forward) for 131 s; " + AT)


def test_several_that_say_nothing_are_counted():
    assert verdict(*LIVE, silent=(0, 2)).text.endswith("for 0 s, and so 1 more; rank 1 is in step 812 (backward)")


def test_a_rank_that_has_never_said_anything_is_named():
    assert verdict(LIVE[0], None, LIVE[2]).text == "rank 1 has said nothing since the start; " + AT


def test_a_dead_rank_of_this_host_is_named_though_another_one_is_silent(monkeypatch):
    monkeypatch.setattr("relvlm.engine.verdict.is_alive", lambda process: {72: False}.get(process.pid))
    found = verdict(*LIVE, silent=(0, 2))
    assert found == Cause("rank 2 on gpu7 (pid 72) died, last seen in step 812 (backward); " + AT)


def test_a_rank_that_failed_by_itself_comes_first_and_is_not_tried_again():
    found = verdict(*changed(2, phase="data", failure="UserError: torn"), silent=(0, 2), error="closed by peer")
    assert found == Cause("rank 2 on gpu7 (pid 72) failed in step 812 (data): UserError: torn", again=False)


def test_a_rank_that_has_ended_may_be_silent():
    assert "all 3 ranks" not in verdict(*changed(2, phase="ended"), silent=(2,)).text
    assert "rank 2 on" not in verdict(*changed(2, phase="ended"), silent=(2,)).text


def test_a_rank_that_waits_for_its_loader_is_named_with_the_worker():
    worker = "loader worker 1 (pid 9) has said nothing for 94 s"
    found = verdict(*changed(1, phase="data", workers=worker))
    assert found.text == f"rank 1 on gpu7 (pid 71) waits for data in step 812 (data) for 95 s: {worker}"


@pytest.mark.parametrize("behind", [{"phase": "data"}, {"step": 811, "phase": "log"}, {"phase": "forward"}])
def test_a_rank_that_is_behind_is_named(behind):
    found = verdict(*changed(1, **behind)).text
    assert found.startswith("rank 1 on gpu7 (pid 71) is in step") and "rank 0 is in step 812 (backward)" in found


def test_where_none_is_behind_that_is_said():
    assert verdict(*LIVE).text == "all 3 ranks are in step 812 (backward) for 95 s; none of them is behind"
    assert verdict(LIVE[0]).text == "rank 0 on gpu7 (pid 70) is in step 812 (backward) for 95 s"


def test_a_connection_that_is_lost_though_all_live_is_named_with_its_error():
    found = verdict(*LIVE, error="Connection reset").text
    assert "lost its connection in step 812 (backward), though all ranks are there: Connection reset" in found


def test_every_rank_is_listed_with_its_last_step():
    listed = listing([LIVE[0], None, replace(LIVE[2], phase="data", workers="loader worker 1 is silent")])
    assert listed.splitlines() == [
        "rank 0 on gpu7 (pid 70): step 812 (backward) for 95 s",
        "rank 1: nothing",
        "rank 2 on gpu7 (pid 72): step 812 (data) for 95 s; loader worker 1 is silent",
    ]
