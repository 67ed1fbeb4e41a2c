"""Ranges and defaults of deadlines and spikes."""

from support.limits import limits

from relvlm.config.trouble import DeadlinesConfig, SpikesConfig


def test_limits_stay_as_they_are():
    assert limits("deadlines.", "spikes.") == {
        "at least 1 and at most 1,000,000": " ".join(
            ["deadlines.evaluation deadlines.first_step deadlines.save deadlines.start deadlines.step"]
        ),
        "at least 0 and at most 1,000,000": "spikes.factor",
        "at least 2 and at most 1,000,000": "spikes.window",
        "at least 0 and at most 9,999,999": "spikes.max_steps",
    }


def test_a_hang_ends_within_two_minutes_by_default_and_a_spike_ends_nothing():
    assert DeadlinesConfig() == DeadlinesConfig(start=900.0, first_step=900.0, step=90.0, save=600.0, evaluation=3600.0)
    assert SpikesConfig() == SpikesConfig(factor=10.0, window=128, max_steps=0)


def test_the_longest_deadline_is_what_a_collective_must_outlast():
    assert DeadlinesConfig(first_step=7200.0).longest == 7200.0
    assert DeadlinesConfig(evaluation=1.0, save=1800.0).longest == 1800.0
