"""Steps that go wrong are counted; what is a spike, and how many are too many."""

from dataclasses import replace

import pytest

from relvlm.config.schema import Config
from relvlm.config.trouble import SpikesConfig
from relvlm.engine.run_state import Progress
from relvlm.engine.trouble import WARM_UP, Spikes, counted, is_too_much

STEADY = [1.0, 1.5, 2.0] * WARM_UP  # median 1.5, deviation .5


def spikes(losses: list[float], kind: str = "captions", **config: float) -> tuple[Spikes, list[bool]]:
    found = Spikes(replace(SpikesConfig(factor=4.0), **config))
    return found, [found.count(kind, loss) for loss in losses]


@pytest.mark.parametrize(("loss", "spike"), [(3.5, False), (3.51, True)])
def test_a_loss_is_a_spike_above_so_many_deviations_over_the_median(loss, spike):
    assert spikes([*STEADY, loss])[1][-1] == spike


@pytest.mark.parametrize(("loss", "spike"), [(1.04, False), (1.041, True)])
def test_losses_that_are_all_alike_deviate_by_a_hundredth(loss, spike):
    assert spikes([1.0] * 99 + [loss])[1][-1] == spike


@pytest.mark.parametrize(("before", "spike"), [(WARM_UP - 1, False), (WARM_UP, True)])
def test_there_is_none_before_a_kind_has_warmed_up(before, spike):
    assert spikes([1.0] * before + [99.0])[1][-1] == spike


def test_each_kind_has_losses_of_its_own():
    found, _ = spikes(STEADY)
    assert not found.count("mrc", 99.0) and found.count("captions", 99.0)


def test_only_the_window_counts():
    assert not spikes([1.0] * 50 + [99.0] * 20 + [99.0], window=16)[1][-1]


def test_spikes_in_a_row_end_with_a_loss_that_is_none():
    found, _ = spikes([*STEADY, 99.0, 99.0])
    assert found.in_a_row == 2
    found.count("captions", float("nan"))
    assert found.in_a_row == 2
    found.count("captions", 1.0)
    assert found.in_a_row == 0


def test_a_factor_of_0_looks_for_none():
    assert not any(spikes([*STEADY, 1e9], factor=0.0)[1])


def test_skipped_steps_are_counted_in_a_row_and_in_all():
    progress = Progress(7)
    for stepped in (False, False, True, False):
        progress = counted(progress, stepped)
    assert progress == Progress(11, skipped=1, skipped_in_all=3)


def test_more_than_the_most_in_a_row_are_too_many():
    config = Config(max_skipped_steps=3, spikes=SpikesConfig(max_steps=2))
    for progress, much in (
        (Progress(skipped=3), False),
        (Progress(skipped=4), True),
        (Progress(spiking=2), False),
        (Progress(spiking=3), True),
    ):
        assert is_too_much(progress, config) == much
    assert not is_too_much(Progress(spiking=10**6), Config())
