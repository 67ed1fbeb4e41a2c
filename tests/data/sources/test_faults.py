"""How many faulty records a build bears, and how it tells of them."""

import pytest

from relvlm.data.sources.faults import FEW, SHOWN, Faults, LeftOut, RecordFault, one_line, shown
from relvlm.errors import UserError


def refuse(record):
    if record == "bad":
        raise RecordFault("field: no number", shown(record))
    if record == "ruled out":
        raise LeftOut("a crowd")
    return record


def faults_of(good, bad, ruled_out=0, share=0.01):
    faults = Faults("toy", share)
    records = ["good"] * good + ["bad"] * bad + ["ruled out"] * ruled_out
    assert list(faults.sound("box", enumerate(records), refuse, "a.json")) == ["good"] * good
    return faults


@pytest.mark.parametrize(
    ("good", "bad", "share", "borne"),
    [
        (9, 0, 0, True),
        (9, 1, 0, False),
        (9, 1, 0.01, True),
        (9, FEW, 0.01, True),
        (9, FEW + 1, 0.01, False),
        (1, FEW, 0.01, True),
        (0, 1, 0.01, False),
        (0, 2, 0.01, False),
        (990, 10, 0.01, True),
        (989, 11, 0.01, False),
        (0, 5, 1, True),
    ],
)
def test_a_build_bears_a_share_or_a_few(good, bad, share, borne):
    faults = faults_of(good, bad, share=share)
    if borne:
        faults.check()
    else:
        with pytest.raises(UserError, match=rf"toy: {bad} of {good + bad} box records cannot be used, --max-faults"):
            faults.check()


def test_what_a_rule_leaves_out_is_no_fault_and_no_record_of_the_share():
    faults_of(9, 0, ruled_out=500, share=0).check()
    with pytest.raises(UserError, match="4 of 10 box records"):
        faults_of(6, 4, ruled_out=5000).check()


def test_the_error_shows_the_table_and_the_first_records():
    with pytest.raises(UserError) as error:
        faults_of(2, 7).check()
    lines = str(error.value).split("\n")
    assert lines[1].split() == ["7", "of", "9", "box", "records", "left", "out,", "faulty:", "field:", "no", "number"]
    assert lines[2] == "a.json[2]: field: no number: 'bad'"
    assert len(lines) == 2 + 5


def test_the_log_has_every_record_on_a_line_of_its_own():
    faults = faults_of(1, 7)
    faults.add("box", "a\nb\u2028.jpg", RecordFault("file: odd", "\ud800"))
    assert len(faults.log()) == 2 + 7 + 1
    assert faults.log()[-1] == "a\\nb\\u2028.jpg: file: odd: \\ud800"


def test_a_kind_with_many_sound_records_does_not_hide_another():
    faults = faults_of(5000, 0)
    list(faults.sound("caption", enumerate(["bad"] * 5 + ["good"]), refuse, "b.json"))
    with pytest.raises(UserError, match="5 of 6 caption records"):
        faults.check()


def test_values_are_shown_short():
    deep = value = []
    for _ in range(100_000):
        value.append([])
        value = value[0]
    assert max(len(shown(v)) for v in (deep, "x" * 10_000, [{"a": "b" * 50}] * 50)) <= SHOWN
    assert one_line("plain") == "plain"


def test_a_build_bears_a_hundredth_where_nothing_else_is_said():
    assert Faults("toy").max_share == 0.01


def test_reasons_of_a_kind_stand_by_count_and_then_by_name():
    faults = faults_of(9, 0)
    for i, why in enumerate(["b: odd", "a: odd", "c: odd", "c: odd"]):
        faults.add("box", f"x{i}", RecordFault(why))
    assert [line.rpartition("faulty: ")[2] for line in faults.table()] == ["c: odd", "a: odd", "b: odd"]
