"""What a study says of when to stop."""

from relvlm.study.selection import selection_lines, soup_lines


def _result(dev, test):
    steps = (10, 20, 30)
    return {"curves": {"VSR dev": list(zip(steps, dev, strict=True)), "VSR test": list(zip(steps, test, strict=True))}}


def test_a_dev_figure_chooses_and_the_test_figure_is_told():
    seeds = {0: _result((50, 70, 60), (51, 61, 66)), 1: _result((50, 60, 70), (52, 62, 64))}
    lines = selection_lines({"ReX-VLM": seeds}, ["VSR test"])
    assert lines == [
        ["", "chosen by", "step", "VSR test"],
        ["**ReX-VLM**", "the last step", "30", "**65.0** ± 1.4"],
        ["", "VSR dev", "25", "**62.5** ± 2.1"],
        ["", "each figure by itself", "", "**65.0** ± 1.4"],
    ]


def test_of_equal_checkpoints_the_earliest_is_chosen():
    (_, _, chosen, _) = selection_lines({"ALBEF": {0: _result((50, 70, 70), (51, 61, 66))}}, ["VSR test"])
    assert chosen[1:] == ["VSR dev", "20", "**61.0**"]


def test_an_arm_without_the_curve_of_a_figure_is_left_out():
    results = {"ALBEF": {0: _result((50, 70, 70), (51, 61, 66))}, "X-VLM": {}}
    assert len(selection_lines(results, ["VALSE"])) == 1
    assert [line[0] for line in selection_lines(results, ["VSR test"]) if line[0]] == ["**ALBEF**"]


def test_averages_stand_beside_the_last_step_and_the_best_on_dev_of_the_same_seeds():
    steps = (10, 20)
    curves = {"COCO dev TR@1": [(10, 60), (20, 50)], "SVO": [(10, 70), (20, 80)]}
    souped = {"curves": curves, "soups": {"uniform": {"SVO": 82.0}, "greedy": {"SVO": 81.0}}}
    other = {"curves": {title: list(zip(steps, (1, 2), strict=True)) for title in curves}}
    lines = soup_lines({"ALBEF": {0: souped, 1: other}, "X-VLM": {0: other}}, ["SVO"])
    assert lines == [
        ["", "seeds", "what is taken", "SVO"],
        ["**ALBEF**", "1", "the last step", "**80.0**"],
        ["", "", "COCO dev TR@1", "**70.0**"],
        ["", "", "uniform average", "**82.0**"],
        ["", "", "greedy average", "**81.0**"],
    ]
    less = souped | {"soups": {"uniform": {"SVO": 84.0}}}  # an average that some seeds lack has no row
    assert [line[2:] for line in soup_lines({"ALBEF": {0: souped, 1: less}}, ["SVO"])[3:]] == [
        ["uniform average", "**83.0** ± 1.4"]
    ]


def test_figures_without_curves_have_no_column_and_hide_no_other():
    """Of a plan that names no figures all are asked for, calibrated ones and recalls at 5, too."""
    result = _result((50, 70, 60), (51, 61, 66))
    result["curves"]["COCO dev TR@1"] = [(10, 1), (20, 3), (30, 2)]
    results = {"ALBEF": {0: result | {"soups": {"uniform": {"VSR test": 67.0, "VSR test, calibrated": 68.0}}}}}
    asked = ["VSR test", "Paragraphs TR@5", "VSR test, calibrated"]
    assert selection_lines(results, asked) == selection_lines(results, ["VSR test"])
    assert soup_lines(results, asked) == soup_lines(results, ["VSR test"])
    assert len(soup_lines(results, ["VSR test"])) == 4
    assert soup_lines(results, asked[1:])[1:] == selection_lines(results, asked[1:])[1:] == []
