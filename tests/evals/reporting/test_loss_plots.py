"""Curves of a training log, and which of them share a picture."""

import math

import pytest

from relvlm.evals.reporting.loss_plots import plot_losses, read_log, smooth

LOG = (
    "step,dataset,samples_hash,lr,step_s,data_s,captions/itc,vsg/itc\n"
    "1,coco,00000000000000e1,0.1,2.0,0.5,3.0,\n"
    "2,gqa,1234567890123456,0.2,1.0,0.25,,2.0\n"
)


def test_what_is_no_number_is_no_curve(tmp_path):
    (tmp_path / "metrics.csv").write_text(LOG)
    assert read_log(tmp_path / "metrics.csv") == {
        "lr": [(1, 0.1), (2, 0.2)],
        "step_s": [(1, 2.0), (2, 1.0)],
        "data_s": [(1, 0.5), (2, 0.25)],
        "captions/itc": [(1, 3.0)],
        "vsg/itc": [(2, 2.0)],
    }


def test_kinds_share_the_picture_of_an_objective_and_phases_that_of_the_seconds(tmp_path):
    (tmp_path / "metrics.csv").write_text(LOG)
    plots = plot_losses(read_log(tmp_path / "metrics.csv"), tmp_path / "plots")
    assert [path.name for path in plots] == ["itc.png", "lr.png", "seconds.png"]
    assert all(path.stat().st_size > 1000 for path in plots)


def test_a_skipped_step_is_not_in_the_average_of_those_after_it():
    whole, broken = smooth([4.0, 2.0, 1.0]), smooth([math.nan, 4.0, math.inf, 2.0, 1.0])
    assert whole == pytest.approx([4, (0.9 * 4 + 2) / 1.9, (0.81 * 4 + 0.9 * 2 + 1) / 2.71])
    assert math.isnan(broken[0]) and [broken[i] for i in (1, 3, 4)] == whole and broken[2] == broken[1]
