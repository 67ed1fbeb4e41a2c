"""The model as a library: padded tensors in and out, the packed encoder inside."""

from dataclasses import replace

import pytest
import torch
from toys import LATE, SWIN, VIT, five_groups, padded, toy_model

from relvlm.errors import UserError
from relvlm.model import mean_first


def test_match_pairs_equals_fuse():
    model, batch = toy_model(replace(VIT, text=replace(VIT.text, norm="pre"))).eval(), five_groups("captions")
    image = model.encode_image(batch.pixels)
    ids, mask = padded(batch, batch.text_ids)
    text = model.encode_text(ids, mask)
    pairs_image, pairs_text = torch.tensor([3, 0, 0]), torch.tensor([4, 2, 2])
    logits = model.match_pairs(
        image,
        model.encode_text_packed(batch.text_ids, batch.regions.offsets),
        batch.regions.offsets,
        pairs_image,
        pairs_text,
    )
    expected = model.match_logits(model.fuse(text[pairs_text], mask[pairs_text], image[pairs_image]))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)


def test_a_hidden_patch_is_no_key_in_the_last_vision_blocks():
    model = toy_model(LATE)
    pixels, seen = torch.randn(1, 3, 32, 32), torch.zeros(1, 17, dtype=torch.bool)
    seen[0, [0, 6, 7]] = True
    whole = torch.ones_like(seen)
    region, image = (model.encode_regions(pixels, torch.tensor([0]), mask) for mask in (seen, whole))
    torch.testing.assert_close(image, model.encode_image(pixels))
    assert not torch.isclose(region[0, 0], image[0, 0]).any()


def tokens(model, kind="captions"):
    """Padded text, its mask, and the image tokens, of as many texts as images."""
    batch = five_groups(kind)
    ids, mask = padded(batch, batch.text_ids)
    return model.encode_text(ids, mask), mask, model.encode_image(batch.pixels)


def test_padding_is_zero_and_changes_nothing():
    model, batch = toy_model().eval(), five_groups("captions")
    ids, mask = padded(batch, batch.text_ids)
    text, _, image = tokens(model)
    assert not text[~mask].any() and not model.fuse(text, mask, image)[~mask].any()
    alone = model.encode_text(ids[:1, : int(mask[0].sum())], mask[:1, : int(mask[0].sum())])
    torch.testing.assert_close(text[:1, : alone.shape[1]], alone)


def test_features_are_of_the_first_token_and_of_length_one():
    model = toy_model().eval()
    text, _, image = tokens(model)
    for features, projection, first in (
        (model.image_features(image), model.image_projection, image[:, 0]),
        (model.text_features(text), model.text_projection, text[:, 0]),
        (model.text_features(text[:, 0]), model.text_projection, text[:, 0]),
    ):
        expected = projection(first)
        torch.testing.assert_close(features, expected / expected.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("config", [VIT, SWIN], ids=["vit", "swin"])
def test_a_mask_hides_what_it_does_not_show(config):
    model = toy_model(config).eval()
    text, mask, image = tokens(model)
    seen = torch.ones(image.shape[:2]).bool()
    torch.testing.assert_close(model.fuse(text, mask, image, seen), model.fuse(text, mask, image))
    seen[:, 3] = False
    changed = image.clone()
    changed[:, 3] += 9.0
    torch.testing.assert_close(model.fuse(text, mask, image, seen), model.fuse(text, mask, changed, seen))
    assert not torch.allclose(model.fuse(text, mask, image), model.fuse(text, mask, changed))


def test_a_mask_that_shows_nothing_is_refused():
    model = toy_model().eval()
    text, mask, image = tokens(model)
    seen = torch.ones(image.shape[:2]).bool()
    seen[2] = False
    with pytest.raises(ValueError, match="each row must show a token"):
        model.fuse(text, mask, image, seen)


def test_a_regions_first_token_is_the_mean_of_its_patches():
    model = toy_model().eval()
    pixels, seen = torch.randn(2, 3, 32, 32), torch.zeros(2, 17).bool()
    seen[0, [0, 5, 6]] = True
    seen[1] = True
    image, regions = model.encode_image(pixels), model.encode_regions(pixels, torch.tensor([1, 0]), seen)
    torch.testing.assert_close(regions[0, 0], image[1, [5, 6]].mean(0))
    torch.testing.assert_close(regions[0, 1:], image[1, 1:])
    torch.testing.assert_close(regions[1], image[0])


def test_the_first_token_stays_where_no_patch_is_seen():
    tokens_BSD, mask = torch.randn(3, 4, 3), torch.tensor([[1, 0, 0, 0], [1, 0, 1, 1], [0, 0, 1, 0]]).bool()
    found = mean_first(tokens_BSD, mask)
    assert torch.equal(found[0], tokens_BSD[0]) and torch.equal(found[:, 1:], tokens_BSD[:, 1:])
    torch.testing.assert_close(found[1, 0], tokens_BSD[1, 2:].mean(0))
    assert torch.equal(found[2, 0], tokens_BSD[2, 2])


def test_heads_read_the_first_token():
    model = toy_model().eval()
    subject, target = torch.randn(3, 4, 32), torch.randn(3, 4, 32)
    assert torch.equal(model.match_logits(subject), model.itm_head(subject[:, 0]))
    assert torch.equal(model.predict_boxes(subject), model.box_head(subject[:, 0]))
    assert torch.equal(model.mlm_logits(subject), model.mlm_head(subject))
    hidden = torch.relu(model.mrc_head.first(torch.cat([subject[:, 0], target[:, 0]], -1)))
    torch.testing.assert_close(model.relation_logits(subject, target), model.mrc_head.second(hidden))


def test_what_a_model_lacks_is_said():
    model = toy_model(replace(VIT, localisation=False, relations=False))
    fused = torch.randn(1, 2, 32)
    with pytest.raises(ValueError, match="localisation"):
        model.predict_boxes(fused)
    with pytest.raises(ValueError, match=r"model\.relations"):
        model.relation_logits(fused, fused)
    with pytest.raises(UserError, match=r"vocab\.txt"):
        model.tokenizer  # noqa: B018
