"""Too large a share of faulty records ends a run, on all ranks alike."""

import pytest
from support.threads import Threads

from relvlm import ranks
from relvlm.engine.left_out import BORNE, LeftOut
from relvlm.errors import ToldByFirstRank, UserError


def of(rate, images, faults):
    left_out = LeftOut(rate)
    left_out.add(images, [faults, 0, 3, 0, 0])
    return left_out


@pytest.mark.parametrize(
    ("rate", "images", "faults"),
    [(0.01, 0, BORNE), (0.01, 1980, 20), (0.0, 1000, 0), (1.0, 0, 1000), (0.001, 10_000_000 - 10_000, 10_000)],
)
def test_a_share_that_is_allowed_ends_nothing(rate, images, faults):
    of(rate, images, faults).check()


@pytest.mark.parametrize(("rate", "images", "faults"), [(0.01, 0, BORNE + 1), (0.01, 1979, 21), (0.0, 1000, 1)])
def test_a_larger_one_ends_the_run(rate, images, faults):
    message = rf"^data\.max_fault_rate: {faults} of {images + faults} records read on all ranks are faulty"
    with pytest.raises(UserError, match=message):
        of(rate, images, faults).check()


def test_steps_add_up():
    left_out = of(0.01, 600, 6)
    left_out.add(600.0, [5.0, 1.0, 0.0, 0.0, 0.0])
    assert str(left_out) == "faults 11, truncated_texts 1, cut_captions 3"
    left_out.check()
    left_out.add(0, [2, 0, 0, 0, 0])
    with pytest.raises(UserError, match=r"13 of 1213 records .* \(1\.07%\), at most 1\.00% may be"):
        left_out.check()


def test_the_first_rank_tells_it(monkeypatch):
    threads = Threads(2)
    monkeypatch.setattr(ranks, "dist", threads)

    def work(rank):
        with pytest.raises(UserError) as caught:
            of(0.0, 9, 1).check()
        return type(caught.value)

    assert threads.run(work) == [UserError, ToldByFirstRank]
