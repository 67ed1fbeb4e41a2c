"""What a run leaves in its folder when it ends."""

from pathlib import Path

import pytest

from relvlm.engine.ending import ENDING, clear_ending, note_ending, read_ending
from relvlm.errors import UserError
from relvlm.stopping import Stopped


@pytest.mark.parametrize(
    ("error", "how", "reason"),
    [
        (None, "ended", ""),
        (Stopped("told to end by SIGTERM", Path("c/step_0000003")), "stopped", "told to end by SIGTERM: saved c/step"),
        (UserError("no room\nat all"), "failed", "UserError: no room"),
        (RuntimeError(), "failed", "RuntimeError"),
        (KeyboardInterrupt(), "failed", "KeyboardInterrupt"),
    ],
)
def test_how_and_why(error, how, reason, tmp_path):
    note_ending(tmp_path, error)
    found = read_ending(tmp_path)
    assert (found.how, found.reason[: len(reason)]) == (how, reason) and "\n" not in found.reason


def test_a_run_that_goes_on_has_not_ended(tmp_path):
    clear_ending(tmp_path)
    note_ending(tmp_path, None)
    clear_ending(tmp_path)
    assert read_ending(tmp_path) is None


@pytest.mark.parametrize(("earlier", "kept"), [(None, True), (UserError("x"), False), (Stopped("x", Path("c")), False)])
def test_a_start_that_is_refused_leaves_a_run_that_is_done(earlier, kept, tmp_path):
    note_ending(tmp_path, earlier)
    note_ending(tmp_path, UserError("was trained otherwise"))
    assert (read_ending(tmp_path).how == "ended") == kept
    clear_ending(tmp_path)
    note_ending(tmp_path, UserError("y"))
    assert read_ending(tmp_path).how == "failed"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"how": "ended"}', "\x00\xff"])
def test_what_is_torn_says_nothing(text, tmp_path):
    (tmp_path / ENDING).write_text(text)
    assert read_ending(tmp_path) is None


def test_a_disk_that_takes_nothing_hides_no_other_error(tmp_path):
    note_ending(tmp_path / "gone", RuntimeError("the cause"))
    assert not (tmp_path / "gone").exists()
