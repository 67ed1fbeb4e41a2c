"""The band of several seeds around their mean."""

from relvlm.evals.reporting.bands import band, plot_bands


def test_a_band_has_the_mean_and_the_extremes_at_the_steps_that_all_seeds_have():
    assert band([[(5, 50.0), (10, 60.0)], [(5, 50.0), (10, 70.0), (15, 1.0)]]) == [
        (5, 50.0, 50.0, 50.0),
        (10, 65.0, 60.0, 70.0),
    ]
    assert band([]) == band([[(5, 50.0)], []]) == []


def test_without_a_curve_there_is_no_file(tmp_path):
    assert plot_bands({"ReX": [[]], "X": []}, "VSR", tmp_path / "vsr.png") is None
    assert plot_bands({"ReX": [[(1, 2.0)]], "X": []}, "VSR", tmp_path / "vsr.png") == tmp_path / "vsr.png"
    assert [path.name for path in tmp_path.iterdir()] == ["vsr.png"]
