"""What of a batch is encoded, in which order, and where each group finds its text and its view: against lists."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from support.batches import joint_of, made_batch
from torch import Tensor
from toys import DROPPING, LATE, VIT, five_groups, toy_model

from relvlm.data.batches.batch import Batch, distinct_texts
from relvlm.model import RelVLM
from relvlm.plan.workload import Workload
from relvlm.pretraining.encode import EncodedViews, Features, encode, encode_images, encode_texts
from relvlm_kernels import Regions


def ids_themselves(ids_T: Tensor, cu: Tensor) -> Tensor:
    """In the place of a text encoder."""
    return ids_T[:, None]


def texts_of(ids_T: Tensor, cu: Tensor, which: Tensor) -> list[list[int]]:
    return [ids_T[cu[i] : cu[i + 1]].flatten().tolist() for i in which.tolist()]


def said(batch: Batch, ids_T: Tensor, groups: range) -> list[list[int]]:
    return texts_of(ids_T, batch.regions.offsets, torch.tensor(groups))


def captions_and_mrc() -> Batch:
    """Four groups of two kinds; only those of the first have masked words."""
    works = Workload("captions", 2, 1, 5, 8, masked=1), Workload("mrc", 2, 1, 3, 8, relations=0)
    parts = [made_batch(work, 32, 4, 50, 7, seed) for seed, work in enumerate(works)]
    return joint_of([parts[0], replace(parts[1], pixels=parts[0].pixels)])


@pytest.mark.parametrize("make", [lambda: five_groups("captions"), captions_and_mrc, lambda: five_groups("mrc")])
def test_each_text_and_then_each_with_masked_words_is_encoded(make: Callable[[], Batch]):
    batch = make()
    tokens, cu, of_group, masked = encode_texts(ids_themselves, batch, unique=True)
    assert texts_of(tokens, cu, of_group) == said(batch, batch.text_ids, range(batch.groups))
    assert texts_of(tokens, cu, masked) == said(batch, batch.mlm_ids, range(batch.aligned))
    assert of_group.tolist() == list(range(batch.groups)) and len(cu) == 1 + batch.groups + batch.aligned
    assert masked.tolist() == list(range(batch.groups, batch.groups + batch.aligned))


def test_equal_texts_are_encoded_once_unless_they_are_masked():
    batch = five_groups("captions")  # texts 1 and 4 have one key
    batch = replace(batch, distinct=distinct_texts(batch.text_key.tolist(), batch.regions.offsets.tolist()))
    tokens, cu, of_group, masked = encode_texts(ids_themselves, batch, unique=True)
    assert of_group.tolist() == [0, 1, 2, 3, 1] and masked.tolist() == [4, 5, 6, 7, 8]
    assert texts_of(tokens, cu, torch.arange(4)) == said(batch, batch.text_ids, range(4))
    assert texts_of(tokens, cu, masked) == said(batch, batch.mlm_ids, range(5))
    every = encode_texts(ids_themselves, batch, unique=False)
    assert every.of_group.tolist() == [0, 1, 2, 3, 4]
    assert encode(toy_model(), batch, "cross_attention").texts.of_group.tolist() == [0, 1, 2, 3, 1]


# ---- views -----------------------------------------------------------------------------------------------


def seen_by(views: EncodedViews, view: int) -> Tensor:
    """The tokens of a view: of boxes, without those of a mean."""
    if not isinstance(views.views, Regions):
        place = int(views.views[view])
        return views.tokens[views.key_cu[place] : views.key_cu[place + 1]]
    regions, image = views.views, views.tokens[int(views.views.image[view])]
    (mask,) = regions.pick(torch.tensor([view]), regions.offsets[:2]).patch_mask()
    return torch.cat([image[:1] if regions.prefix[view] else image[:0], image[1:][mask]])


def patches_of(batch: Batch, group: int) -> list[int]:
    x0, y0, x1, y1 = batch.regions.box[group].tolist()
    return [4 * row + column for row in range(y0, y1) for column in range(x0, x1)]


@pytest.mark.parametrize("kind", ["captions", "entities", "mrc"])
def test_a_group_sees_its_box_and_in_its_second_view_the_whole_image(kind: str):
    model, batch = toy_model(), five_groups(kind)
    views, image = encode_images(model.vision, batch, "cross_attention"), model.encode_image(batch.pixels)
    for group, (place, whole) in enumerate(zip(batch.regions.image.tolist(), batch.whole.tolist(), strict=True)):
        inside = image[place, 1:][patches_of(batch, group)]
        torch.testing.assert_close(seen_by(views, group), image[place] if whole else inside)
        torch.testing.assert_close(seen_by(views, 5 + group), image[place])
        torch.testing.assert_close(views.cls_GD[group], image[place, 0] if whole else inside.mean(0))
    assert views.key_cu is None and views.views.mean.tolist() == [*batch.regions.mean.tolist(), *[False] * 5]


def test_late_masked_regions_have_tokens_of_their_own_behind_those_of_the_images():
    model, batch = toy_model(LATE), five_groups("entities")
    views, image = encode_images(model.vision, batch, "late_vision"), model.encode_image(batch.pixels)
    assert views.views.tolist() == [0, 3, 4, 1, 5, 0, 0, 1, 1, 2]  # three images, then the regions 1, 2 and 4
    for view, place in ((0, 0), (3, 1), (5, 0), (6, 0), (7, 1), (9, 2)):
        torch.testing.assert_close(seen_by(views, view), image[place])
    masks = F.pad(batch.regions.patch_mask(), (1, 0), value=True)
    copies = model.encode_regions(batch.pixels, batch.regions.image, masks)
    for group in range(5):
        torch.testing.assert_close(seen_by(views, group), copies[group][masks[group]])
        torch.testing.assert_close(views.cls_GD[group], copies[group, 0])


def test_without_aligned_groups_no_whole_image_goes_through_the_late_blocks():
    model, batch = toy_model(LATE), five_groups("mrc")
    views = encode_images(model.vision, batch, "late_vision")
    assert views.views[:5].tolist() == [0, 1, 2, 3, 4] and len(views.key_cu) == 6
    masks = F.pad(batch.regions.patch_mask(), (1, 0), value=True)
    copies = model.encode_regions(batch.pixels, batch.regions.image, masks)
    for group in range(5):
        torch.testing.assert_close(seen_by(views, group), copies[group][masks[group]])


def test_whole_images_alone_are_not_masked_late():
    model, batch = toy_model(LATE), five_groups("captions")
    views = encode_images(model.vision, batch, "late_vision")
    torch.testing.assert_close(views.tokens, model.encode_image(batch.pixels))
    assert isinstance(views.views, Regions)


def test_of_dropped_patches_both_views_are_those_that_are_left(monkeypatch: pytest.MonkeyPatch):
    model, batch = toy_model(DROPPING), five_groups("captions")
    kept = torch.stack([torch.randperm(16)[:6] for _ in range(5)])
    monkeypatch.setattr(model.vision, "draw_patches", lambda pixels: kept)
    views = encode_images(model.vision, batch, "cross_attention")
    torch.testing.assert_close(views.tokens, model.vision(batch.pixels, kept))
    for group in range(5):
        torch.testing.assert_close(seen_by(views, group), views.tokens[group])
        torch.testing.assert_close(seen_by(views, 5 + group), views.tokens[group])
        torch.testing.assert_close(views.cls_GD[group], views.tokens[group, 0])
    assert views.views.grid == (1, 6) and len(views.views.image) == 10


# ---- features --------------------------------------------------------------------------------------------


def test_features_are_those_of_a_groups_view_and_of_its_texts_first_token():
    model, batch = toy_model(VIT), five_groups("entities")
    encoded, text = encode(model, batch, "cross_attention"), texts_alone(model, batch)
    image = model.image_projection(encoded.views.cls_GD)
    torch.testing.assert_close(encoded.features.image_GE, image / image.norm(dim=1, keepdim=True))
    words = model.text_projection(text)
    torch.testing.assert_close(encoded.features.text_GE, words / words.norm(dim=1, keepdim=True))
    some = encoded.features.of(batch.sections[0]._replace(groups=slice(1, 3)))
    assert torch.equal(some.image_GE, encoded.features.image_GE[1:3])
    assert torch.equal(some.text_GE, encoded.features.text_GE[1:3])


def texts_alone(model: RelVLM, batch: Batch) -> Tensor:
    """First tokens of texts that are encoded one by one."""
    cu = batch.regions.offsets.tolist()
    spans = [batch.text_ids[a:b] for a, b in pairwise(cu)]
    return torch.stack([model.text(ids, torch.tensor([0, len(ids)], dtype=torch.int32))[0] for ids in spans])


def test_groups_that_are_not_aligned_have_no_features():
    model, joint = toy_model(), captions_and_mrc()
    features = encode(model, joint, "cross_attention").features
    assert isinstance(features, Features) and len(features.image_GE) == len(features.text_GE) == 2
    assert encode(model, five_groups("mrc"), "cross_attention").features is None
