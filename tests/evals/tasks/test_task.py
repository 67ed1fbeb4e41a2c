"""What is selected, and what is a dev split."""

import pytest

from relvlm.evals.tasks.task import Selection, is_dev


@pytest.mark.parametrize(("split", "dev"), [("val", True), ("dev", True), ("test", False), (None, False)])
def test_val_and_dev_are_dev_splits(split: str | None, dev: bool) -> None:
    assert is_dev({"split": split} if split else {}) == dev


def test_all_of_the_test_split_is_selected_by_the_protocol_unless_told_otherwise() -> None:
    chosen = Selection()
    assert (chosen.limit, chosen.k, chosen.split, chosen.available, chosen.overlap) == (
        0,
        0,
        "test",
        False,
        (),
    )
