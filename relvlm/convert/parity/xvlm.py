"""X-VLM's vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from relvlm.convert.parity.errors import Errors
from relvlm.convert.parity.shared import (
    Vectors,
    check_gradients,
    check_pair,
    check_temperature,
    check_text,
    check_weights,
    forward,
    fresh_copy,
    itc_within,
)
from relvlm.convert.parity.vectors import IGNORED, xvlm_batch
from relvlm.losses.bbox import bbox_losses, corners, generalised_iou, iou
from relvlm.pretraining.encode import Features
from relvlm.pretraining.negatives import similarities
from relvlm.pretraining.step import Pretraining


def check_xvlm(pretraining: Pretraining, inputs: Vectors, official: Vectors, errors: Errors) -> None:
    """X-VLM's outputs for both kinds of batch, and its box losses alone."""
    model = pretraining.model
    check_text(model, inputs["image"]["text_ids"], inputs["image"]["text_atts"], official, errors, False)
    for part in ("image", "region"):
        _xvlm_part(pretraining, inputs[part], official[part], errors, f"{part}/")
    image = xvlm_batch(inputs["image"], model.vision.grid)
    check_temperature(pretraining, image, inputs["image"], official, errors, {"loss_itc": "itc"})
    _boxes(inputs["box_losses"], official["box_losses"], errors)


def _xvlm_part(pretraining: Pretraining, inputs: Vectors, official: Vectors, errors: Errors, name: str) -> None:
    model = pretraining.model
    dtype = model.temperature.dtype
    ids, mask = inputs["text_ids"], inputs["text_atts"]
    text = model.encode_text(ids, mask)
    errors.check(name + "text_embeds", text, official["text_embeds"], rows=mask.bool())
    image = full = model.encode_image(inputs["images"])
    atts = inputs.get("image_atts")
    if atts is not None:
        full = image[inputs["idx_to_group_img"]]
        errors.check(name + "image_embeds_fullatts", full, official["image_embeds_fullatts"])
        image = model.encode_regions(inputs["images"], inputs["idx_to_group_img"], atts)
    check_pair(model, image, atts, text, mask, official, errors, name)
    masked = model.fuse(model.encode_text(inputs["text_ids_masked"], mask), mask, image, atts)
    errors.check(name + "cross_masked_text", masked, official["cross_masked_text"], rows=mask.bool())
    places = inputs["masked_pos"]
    words = model.mlm_logits(masked.gather(1, places[..., None].expand(-1, -1, masked.shape[-1])))
    errors.check(name + "mlm_logits", words, official["mlm_logits"])
    boxes = model.predict_boxes(model.fuse(text, mask, full))
    errors.check(name + "pred_bbox", boxes, official["pred_bbox"])
    errors.check(name + "loss_itc", itc_within(model, image, text, torch.arange(len(ids))), official["loss_itc"])
    half = torch.arange(len(ids)) // 2
    errors.check(name + "loss_itc_idx_div2", itc_within(model, image, text, half), official["loss_itc_idx_div2"])
    features = Features(model.image_features(image), model.text_features(text))
    sims = similarities(features, model.temperature, features)
    check_weights(model, sims, official, errors, name)
    if atts is not None:
        _box_losses(boxes, inputs["target_bbox"].to(dtype), inputs["is_image"], official, errors, name)

    batch = xvlm_batch(inputs, model.vision.grid)
    fresh = fresh_copy(pretraining)
    logits, losses, total = forward(fresh, batch, official)
    for loss in ("loss_itc", "loss_itm", "loss_mlm"):
        errors.check(name + loss, losses[loss.removeprefix("loss_")], official[loss], "packed")
    if "bbox" in losses:
        both = official["loss_bbox"] + official["loss_giou"]
        errors.check(name + "loss_bbox + loss_giou", losses["bbox"], both, "packed")
        located = official["pred_bbox"][inputs["is_image"] == 0]
        errors.check(name + "pred_bbox", logits["bbox"], located, "packed")
    errors.check(name + "itm_logits", logits["itm"], official["itm_logits"], "packed")
    rows, columns = (inputs["masked_ids"] != IGNORED).nonzero().unbind(1)
    order = (rows * ids.shape[1] + places[rows, columns]).argsort()  # ours are read in the text's order
    official_words = official["mlm_logits"][rows, columns][order]
    errors.check(name + "mlm_logits", logits["mlm"], official_words, "packed")
    check_gradients(fresh, total, official, errors, name)


def _box_losses(boxes: Tensor, target: Tensor, is_image: Tensor, official: Vectors, errors: Errors, name: str) -> None:
    region = is_image == 0
    for suffix, rows in (("", region), ("_no_is_image", torch.ones_like(region))):
        l1, giou = bbox_losses(boxes[rows], target[rows])
        errors.check(f"{name}loss_bbox{suffix}", l1, official[f"loss_bbox{suffix}"])
        errors.check(f"{name}loss_giou{suffix}", giou, official[f"loss_giou{suffix}"])


def _boxes(inputs: Vectors, official: Vectors, errors: Errors) -> None:
    dtype = official["giou_diag"].dtype
    predicted, target = inputs["pred"].to(dtype), inputs["target"].to(dtype)
    _box_losses(predicted, target, inputs["is_image"], official, errors, "box_losses/")
    pair = corners(predicted), corners(target)
    errors.check("box_losses/giou_diag", generalised_iou(*pair), official["giou_diag"])
    errors.check("box_losses/iou_diag", iou(*pair)[0], official["iou_diag"])
