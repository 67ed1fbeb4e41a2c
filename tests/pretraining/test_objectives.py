"""Each objective in its own words: what it asks of the fused pass, what it makes of the rows, what it counts.

On a joint batch of two captions (groups 0, 1), three boxes (2, 3, 4) and the entities of two triplets (5, 6, 7).
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from toys import VIT, toy_model

from relvlm.data.batches.batch import Batch, Section
from relvlm.losses.bbox import bbox_loss
from relvlm.losses.itm import IGNORED
from relvlm.losses.mlm import SoftWords, mlm_loss
from relvlm.pretraining.encode import EncodedTexts
from relvlm.pretraining.negatives import Negatives
from relvlm.pretraining.objectives import OBJECTIVES, SectionInput, _accuracy
from relvlm_kernels import Regions

LENGTHS = [4, 3, 3, 2, 3, 2, 2, 2]
MODEL = toy_model()


def sections() -> tuple[Section, ...]:
    return (
        Section("captions", slice(0, 2), slice(0, 3), slice(0, 0), 1.0),
        Section("entities", slice(2, 5), slice(3, 5), slice(0, 2), 1.0),
        Section("mrc", slice(5, 8), slice(5, 5), slice(2, 5), 1.0),
    )


def made() -> Batch:
    """Group 2 sees the whole image; 3, 4 and those of mrc a box. Words are masked in all texts but 3 and mrc's."""
    torch.manual_seed(0)
    whole = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0]).bool()
    box = torch.tensor([[0, 0, 4, 4]] * 3 + [[0, 0, 2, 2]] * 5, dtype=torch.int32)
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    image = torch.tensor([0, 1, 0, 0, 1, 0, 0, 1], dtype=torch.int32)
    ids = torch.arange(10, 10 + int(offsets[-1]))
    row = torch.tensor([1, 3, 5, 8, 14])  # of texts that begin at 0, 4, 7, 10, 12
    return Batch(
        kind="joint", dataset="made", pixels=torch.zeros(2, 3, 32, 32), image_key=torch.tensor([70, 71]),
        text_ids=ids, text_key=torch.tensor([1, 2, 3, 4, 5, 6, 7, 8]),
        regions=Regions(offsets, image, box, whole, ~whole, (4, 4)), region=torch.tensor([3, 4, 5, 6, 7]),
        target_box=0.2 + 0.5 * torch.rand(8, 4), mlm_ids=ids[:15], mlm_row=row, mlm_label=ids[row],
        subject=torch.tensor([5, 7]), object=torch.tensor([6, 5]), relation=torch.tensor([4, 0]), joint=sections(),
    )  # fmt: skip


# Texts 0 and 6 say the same: eight groups of seven texts, which the five with masked words follow.
TEXTS = EncodedTexts(torch.zeros(0, 32), torch.arange(13), torch.tensor([0, 1, 2, 3, 4, 5, 0, 6]), torch.arange(7, 12))
# Negatives of a section count from its first group: those of `entities`.
DRAWN = Negatives(torch.tensor([1, 2, 0]), torch.tensor([2, 0, 0]), torch.tensor([1, 1, 1, 0, 0, IGNORED, 0, 0, 0]))


def given(place: int, **changes) -> SectionInput:
    negatives = DRAWN if place == 1 else None
    return replace(SectionInput(made(), sections()[place], negatives, None, TEXTS), **changes)


def asked(name: str, x: SectionInput) -> list[list[int] | None]:
    query = OBJECTIVES[name].query(x)
    assert query.tokens is None
    return [None if part is None else part.tolist() for part in query[:3]]


def test_itm_asks_for_each_pair_then_for_another_view_and_for_another_text():
    texts, views = [2, 3, 4, 2, 3, 4, 4, 2, 2], [2, 3, 4, 3, 4, 2, 2, 3, 4]
    assert asked("itm", given(1)) == [texts, views, None]


def test_mlm_asks_for_the_masked_words_of_each_text_at_its_own_view():
    assert asked("mlm", given(0)) == [[7, 8], [0, 1], [1, 3, 5]]
    assert asked("mlm", given(1)) == [[9, 10, 11], [2, 3, 4], [1, 7]]  # rows 8 and 14, of texts from 7 on


def test_bbox_asks_for_the_texts_of_boxes_at_the_whole_image():
    assert asked("bbox", given(1)) == [[3, 4], [8 + 3, 8 + 4], None]


def test_mrc_asks_for_each_entity_in_its_box():
    assert asked("mrc", given(2)) == [[5, 0, 6], [5, 6, 7], None]


def test_itm_is_cross_entropy_over_the_pairs_that_count():
    cls = torch.randn(9, 32)
    loss, accuracy = OBJECTIVES["itm"].value(MODEL, given(1), cls)
    logits, counted = MODEL.itm_head(cls), DRAWN.target != IGNORED
    torch.testing.assert_close(loss, F.cross_entropy(logits[counted], DRAWN.target[counted]))
    right = logits.argmax(1)[counted] == DRAWN.target[counted]
    assert accuracy.item() == pytest.approx(right.float().mean().item())


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "labels and a teacher"])
@pytest.mark.parametrize("chunked", [False, True])
def test_mlm_is_the_loss_of_the_sections_own_masked_words(chunked, soft):
    rows, of_teacher = torch.randn(2, 32), torch.randn(2, 32)
    teacher = toy_model().mlm_head if soft else None
    words = SoftWords(teacher, of_teacher, 0.3) if soft else None
    loss, accuracy = OBJECTIVES["mlm"].value(MODEL, given(1, chunked_words=chunked, soft_words=words), rows)
    expected = mlm_loss(MODEL.mlm_head(rows), torch.tensor([18, 24]), *((teacher(of_teacher), 0.3) if soft else ()))
    torch.testing.assert_close(loss, expected)
    assert accuracy is None


def test_bbox_is_the_loss_of_the_sections_own_boxes():
    cls = torch.randn(2, 32)
    loss, accuracy = OBJECTIVES["bbox"].value(MODEL, given(1), cls)
    torch.testing.assert_close(loss, bbox_loss(MODEL.box_head(cls), made().target_box[3:5]))
    assert accuracy is None


def test_mrc_is_cross_entropy_of_each_pair_of_entities():
    cls = torch.randn(3, 32)
    loss, accuracy = OBJECTIVES["mrc"].value(MODEL, given(2), cls)
    logits = MODEL.mrc_head(cls, torch.tensor([0, 2]), torch.tensor([1, 0]))
    torch.testing.assert_close(loss, F.cross_entropy(logits, made().relation))
    assert accuracy.item() == pytest.approx((logits.argmax(1) == made().relation).float().mean().item())


def test_an_accuracy_is_that_of_the_pairs_that_are_not_ignored():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert _accuracy(logits, torch.tensor([0, 1, IGNORED, 1])).item() == pytest.approx(2 / 3)
    assert _accuracy(logits[:1], torch.tensor([0])).item() == 1.0
    assert _accuracy(logits[:2], torch.tensor([IGNORED, IGNORED])).item() == 0.0


def test_each_counts_what_its_loss_is_a_mean_over():
    """Of pairs, the matches, and a negative view and text for each where there is one: of equal texts there is none."""
    batch, (captions, entities, mrc) = made(), sections()
    counts = {name: OBJECTIVES[name].counted for name in OBJECTIVES}
    assert counts["itm"](batch, entities, "official").item() == 9
    same = replace(batch, text_key=torch.tensor([1, 1, 3, 4, 5, 6, 7, 8]))
    assert counts["itm"](same, captions, "masked").item() == 2 and counts["itm"](same, entities, "masked") == 9
    assert counts["mlm"](batch, captions, "masked") == 3 and counts["mlm"](batch, entities, "masked") == 2
    assert counts["bbox"](batch, entities, "masked") == 2 and counts["bbox"](batch, captions, "masked") == 0
    assert counts["mrc"](batch, mrc, "masked") == 2


@pytest.mark.parametrize("name", OBJECTIVES)
def test_unused_parameters_get_a_gradient_and_only_those_of_the_objective(name):
    model, row = toy_model(), torch.randn(1, 32)
    heads = {"itm": model.itm_head, "mlm": model.mlm_head, "bbox": model.box_head, "mrc": model.mrc_head}
    (0.0 * OBJECTIVES[name].unused(model, row).sum()).backward()
    found = {n for n, p in model.named_parameters() if p.grad is not None}
    own = {n for n, p in model.named_parameters() if any(p is q for q in heads[name].parameters())}
    assert found == own - {"text.embeddings.word.weight"}  # which has one as an embedding
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_a_model_without_the_head_has_nothing_unused():
    model = toy_model(replace(VIT, localisation=False, relations=False))
    row = torch.randn(1, 32)
    assert OBJECTIVES["bbox"].unused(model, row) is None and OBJECTIVES["mrc"].unused(model, row) is None
    assert OBJECTIVES["itm"].unused(model, row).shape == (1, 2) and OBJECTIVES["mlm"].unused(model, row) == 0
