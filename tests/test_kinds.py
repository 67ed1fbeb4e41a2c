"""The table of batch kinds: what the paper trains on each."""

import pytest

from relvlm.kinds import BATCH_KINDS, KINDS, SECTION_KINDS, Kind, datasets_of


@pytest.mark.parametrize(
    ("kind", "datasets", "objectives", "boxed"),
    [
        ("captions", "captions", ("itc", "itm", "mlm"), False),
        ("entities", "entities", ("itc", "itm", "mlm", "bbox"), True),
        ("mrc", "graphs", ("mrc",), True),
        ("vsg", "graphs", ("itc", "itm", "mlm"), False),
    ],
)
def test_each_kind_draws_from_its_sets_and_trains_its_objectives(kind, datasets, objectives, boxed):
    row = KINDS[kind]
    assert (row.datasets, row.objectives, row.boxed, row.weight) == (datasets, objectives, boxed, 1.0)
    assert datasets_of(kind) == datasets


def test_texts_are_contrasted_where_itc_is_an_objective():
    assert [kind for kind in KINDS if KINDS[kind].aligned] == ["captions", "entities", "vsg"]


def test_accuracies_are_logged_beside_the_losses():
    assert KINDS["entities"].values == ["itc", "itm", "mlm", "bbox", "itm_accuracy"]
    assert KINDS["mrc"].values == ["mrc", "mrc_accuracy"]
    assert Kind("captions", ("mlm",)).values == ["mlm"]


def test_joint_batches_have_sections_of_the_others_the_unmasked_last():
    assert BATCH_KINDS == ("captions", "entities", "mrc", "vsg", "joint")
    assert SECTION_KINDS == ("captions", "entities", "vsg", "mrc")
    assert datasets_of("joint") == "joint"
