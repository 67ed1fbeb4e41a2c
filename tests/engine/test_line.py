"""The line that rank 0 prints of a few steps."""

import io
import math

import pytest

from relvlm.engine import line as line_module
from relvlm.engine.line import Line, duration, exponent, losses, short, window_line

COLUMNS = ["step", "captions/itc", "captions/itm", "captions/itm_accuracy", "joint/mrc/mrc"]
LOSSES = ["captions/itc", "captions/itm", "joint/mrc/mrc"]


def row(step: int, **others: object) -> dict[str, object]:
    known = {"step": step, "dataset": "coco", "samples_hash": "0f", "lr": 1.9e-3, "skipped_so_far": 0, "grad_norm": 1.2}
    clocks = {"samples_per_s": 894.0, "tokens_per_s": 12_100.0, "mfu": None, "step_s": 0.5, "data_s": 0.015}
    return known | clocks | {"captions/itc": 2.19, "captions/itm": 0.63, "captions/itm_accuracy": 0.7} | others


def test_a_window_is_one_line():
    assert window_line([row(1199), row(1200)], LOSSES, "mini", 3400, 0.1191) == (
        "step 1,200/3,400 35% | mini | captions itc 2.19 itm .63 | 894 img/s 12.1k tok/s | data 3% | grad 1.20 | "
        "lr 1.9e-3 | 4:22 left"
    )


def test_it_says_what_there_is_to_say_of_skipped_steps_and_mfu():
    found = window_line([row(3, skipped_so_far=2, mfu=0.314, grad_norm=math.nan)], LOSSES, "mini", 4, 1)
    assert " | mfu 31% | skipped 2 | 0:01 left" in found and "grad nan" in found


def test_rates_are_those_of_the_time_that_passed():
    """A step of 1 s with 100 images, one of 3 s with 300, of which the longer waited a second for data."""
    rows = [row(1, samples_per_s=100, step_s=1, data_s=0), row(2, samples_per_s=200, step_s=3, data_s=1)]
    assert "| 175 img/s" in window_line(rows, LOSSES, "m", 2, 1) and "data 25%" in window_line(rows, LOSSES, "m", 2, 1)


def test_losses_are_means_of_the_kinds_that_there_were():
    rows = [row(1), row(2, **{"captions/itc": 3.19}), {"step": 3, "joint/mrc/mrc": 1.5}]
    assert losses(rows, LOSSES) == ["captions itc 2.69 itm .63", "joint mrc mrc 1.50"]


def test_a_loss_that_is_not_finite_spoils_no_mean_but_its_own():
    assert losses([{"a/itc": 2.0}, {"a/itc": math.nan}], ["a/itc"]) == ["a itc 2.00"]
    assert losses([{"a/itc": math.inf}], ["a/itc"]) == ["a itc nan"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.634, ".63"), (-0.5, "-.50"), (0, ".00"), (2.194, "2.19"), (12.14, "12.1"), (893.6, "894"), (12_140, "12.1k"),
     (1e6, "1.00M"), (10.04, "10.0"), (math.nan, "nan")],
)  # fmt: skip
def test_numbers_have_three_digits(value, text):
    assert short(value) == text


def test_small_numbers_have_an_exponent():
    assert (exponent(1.94e-3), exponent(0), exponent(2.0)) == ("1.9e-3", "0", "2.0e0")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (262, "4:22"), (3600, "1:00:00"), (86_400 * 2 + 62, "2 d 0:01:02")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_it_is_a_line_of_the_log(caplog):
    stream = io.StringIO()
    with caplog.at_level("INFO"):
        line = Line("mini", 10, 0, COLUMNS, stream)
        line.write([row(2)])
        line.close()
    assert [record.message[:52] for record in caplog.records] == [
        "step 2/10 20% | mini | captions itc 2.19 itm .63 | 8"
    ] and stream.getvalue() == ""


def test_on_a_terminal_it_is_above_a_slim_bar(caplog):
    stream = Screen()
    with caplog.at_level("INFO"):
        line = Line("mini", 10, 0, COLUMNS, stream)
        line.write([row(2)])
        shown = stream.getvalue()
        line.close()
    assert "step 2/10 20% | mini | " in shown and not caplog.records
    assert "\rmini" in shown and "itc" not in shown.split("\r")[-1]


def test_time_left_is_by_the_newest_windows(monkeypatch):
    seen = []
    monkeypatch.setattr(
        line_module, "window_line", lambda rows, columns, name, steps, seconds: seen.append(seconds) or ""
    )
    line = Line("mini", 100, 0, COLUMNS, io.StringIO())
    for took in (20, *[1.0] * 9, 3.0):
        line.write([row(1, step_s=took)])
    assert seen[0] == 20 and seen[1] == 10.5 and seen[-1] == pytest.approx(1.2)
