"""Two scores an example: which rows belong together, and which is the right one."""

import pytest

from relvlm.errors import UserError
from relvlm.evals.tasks.contrast import Contrast, contrasts, labels


def row(label: str, score: float = 0.5, **fields: object) -> dict:
    return {"label": label, "score": score, **fields}


@pytest.mark.parametrize(("wrong", "won"), [(0.4999, True), (0.5, False), (0.5001, False)])
def test_a_tie_is_lost(wrong: float, won: bool) -> None:
    assert Contrast("0", row("0_c"), row("0_f", wrong)).won == won


def test_rows_join_by_id_within_their_group_whatever_their_order() -> None:
    held = [row("a_0_f", g="x"), row("a_0_c", g="x"), row("a_0_c", g="y"), row("a_0_f", g="y")]
    found = contrasts(held, "g", ("c", "f"))
    assert [(c.identity, c.right["g"]) for c in found] == [("a_0", "x"), ("a_0", "y")]
    assert all(c.right["label"] == "a_0_c" and c.wrong["label"] == "a_0_f" for c in found)
    assert found[0].rows == (held[1], held[0])
    assert len(contrasts(held[:2], None, ("c", "f"))) == 1


@pytest.mark.parametrize("label", ["0_x", "c", "0c", ""])
def test_another_label_is_refused(label: str) -> None:
    with pytest.raises(UserError, match=r"is no <id>_c or <id>_f .*another task"):
        contrasts([row(label)], None, ("c", "f"))


def test_half_of_an_example_is_refused() -> None:
    with pytest.raises(UserError, match="0_f of plurals: absent"):
        contrasts([row("0_c", g="plurals")], "g", ("c", "f"))
    with pytest.raises(UserError, match="0_c of the set: absent"):
        contrasts([row("0_f")], None, ("c", "f"))


def test_the_pattern_of_labels_is_that_of_its_endings() -> None:
    assert labels(("c", "n")) == ".+_[cn]"


def test_a_card_of_two_texts() -> None:
    pair = Contrast("0", row("0_c", 0.9, image="a", text="x"), row("0_f", 0.1, image="a", text="y"))
    card = pair.texts_card("plurals")
    assert card.lines == (("caption:", "x", 0.9), ("foil:", "y", 0.1))
    assert (card.images, card.right, card.piece, card.what) == (("a",), True, "plurals", "")
