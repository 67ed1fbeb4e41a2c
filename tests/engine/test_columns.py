"""The columns of a log: those of the kinds that are drawn, and which of them are clocks."""

from relvlm.config.schema import DataConfig, JointWeights, KindRatios
from relvlm.engine.columns import CLOCKS, HEAD, PHASES, SECONDS, WORDS, columns, objectives


def test_values_are_those_of_the_kinds_that_are_drawn():
    assert objectives(DataConfig(ratio=KindRatios(captions=1, mrc=2))) == [
        "captions/itc", "captions/itm", "captions/mlm", "captions/itm_accuracy", "mrc/mrc", "mrc/mrc_accuracy",
    ]  # fmt: skip


def test_joint_steps_have_a_value_for_each_kind_that_they_weigh():
    data = DataConfig(ratio=KindRatios(joint=1), joint_weights=JointWeights(0.0, 0.0, 1.0, 0.0))
    assert objectives(data) == ["joint/mrc/mrc", "joint/mrc/mrc_accuracy"]


def test_a_row_begins_with_what_every_step_has():
    data = DataConfig(ratio=KindRatios(mrc=1))
    assert columns(data) == [*HEAD, "mrc/mrc", "mrc/mrc_accuracy"] and len(set(HEAD)) == len(HEAD)


def test_what_two_equal_runs_differ_in_are_clocks():
    assert set(SECONDS) == {"step_s", *(f"{phase}_s" for phase in PHASES)} and set(SECONDS) < set(CLOCKS)
    assert set(HEAD) - set(CLOCKS) == {"step", "lr", "skipped", "skipped_so_far", "spike", "grad_norm", *WORDS}
