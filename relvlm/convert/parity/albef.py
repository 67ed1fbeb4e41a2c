"""ALBEF's vectors."""

from __future__ import annotations

import torch

from relvlm.convert.official import to_official
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
from relvlm.convert.parity.vectors import IGNORED, albef_batch
from relvlm.data.batches.batch import Batch
from relvlm.encoders.packing import pack, unpack
from relvlm.model import RelVLM
from relvlm.pretraining.encode import Features
from relvlm.pretraining.negatives import similarities
from relvlm.pretraining.savings import ALL_SAVINGS
from relvlm.pretraining.step import Pretraining
from relvlm.pretraining.teacher import Teacher, update_and_encode_teacher
from relvlm_kernels import Regions


def check_albef(pretraining: Pretraining, inputs: Vectors, official: Vectors, errors: Errors) -> None:
    """ALBEF's outputs in evaluation, and of two whole training forwards."""
    model = pretraining.model
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    real = mask.bool()
    image = model.encode_image(inputs["images"])
    text = check_text(model, ids, mask, official, errors)
    fused = check_pair(model, image, None, text, mask, official, errors, "")
    masked = model.fuse(text, mask, image, inputs["image_atts_random"])
    errors.check("cross_masked_image_atts", masked, official["cross_masked_image_atts"], rows=real)
    words = model.mlm_logits(fused)
    errors.check("mlm_logits_unmasked_input", words, official["mlm_logits_unmasked_input"], rows=real)
    errors.check(
        "loss_itc_in_batch",
        itc_within(model, image, text, torch.arange(len(ids))),
        official["loss_itc_in_batch"],
    )
    batch = albef_batch(inputs, model.vision.grid)
    for alpha in (0.0, 0.4):
        _albef_forward(pretraining, batch, alpha, inputs, official[f"forward_alpha{alpha}"], errors)
    check_temperature(pretraining, batch, inputs, official, errors, {"loss_ita": "itc"})


def _albef_forward(
    pretraining: Pretraining, batch: Batch, alpha: float, inputs: Vectors, official: Vectors, errors: Errors
) -> None:
    """One whole training forward: momentum update, soft targets, queues, losses, gradients."""
    name, mask = f"forward_alpha{alpha}/", inputs["attention_mask"]
    real, masked = mask.bool(), inputs["mlm_labels"] != IGNORED
    pretraining = fresh_copy(pretraining, alpha)
    model, teacher = pretraining.model, pretraining.teacher
    assert teacher is not None
    groups = len(mask)
    other = fresh_copy(pretraining)  # the forward would move the teacher once more
    assert other.teacher is not None
    (target,) = update_and_encode_teacher(
        other.teacher, other.model, [batch], model.config.fusion.region_mask, ALL_SAVINGS
    )
    assert target is not None
    taught, no_pair = target.features, torch.zeros(groups, groups).bool()
    keys = other.teacher.contrast_keys(taught, other.model.temperature, no_pair)
    logits, losses, total = forward(pretraining, batch, official)
    for loss in ("loss_mlm", "loss_itm"):
        errors.check(name + loss, losses[loss.removeprefix("loss_")], official[loss], "packed")
    errors.check(name + "loss_ita", losses["itc"], official["loss_ita"], "packed")
    errors.check(name + "itm_logits", logits["itm"], official["itm_logits"], "packed")
    errors.check(name + "mlm_logits", logits["mlm"], official["mlm_logits"][masked], "packed")
    words = other.teacher.mlm_head(target.masked_MD)
    errors.check(name + "mlm_logits_m", words, official["mlm_logits_m"][masked], "packed")
    errors.check(name + "image_feat_m", taught.image_GE, official["image_feat_m"], "packed")
    errors.check(name + "text_feat_m", taught.text_GE, official["text_feat_m"], "packed")

    image_embeds_m = teacher.vision(inputs["images"])
    errors.check(name + "image_embeds_m", image_embeds_m, official["image_embeds_m"])
    ids, cu = pack(inputs["mlm_input_ids"], mask)
    whole = Regions.whole(cu, torch.arange(groups, dtype=torch.int32), model.vision.grid)
    for prefix, part, image in (
        ("mlm_logits", model, model.encode_image(inputs["images"])),
        ("mlm_logits_m", teacher, image_embeds_m),
    ):
        words = part.mlm_head(part.fusion(part.text(ids, cu), image, whole))
        errors.check(name + prefix, unpack(words, mask), official[prefix], rows=real)

    image_feat = model.image_features(model.encode_image(inputs["images"]))
    text_feat = model.text_features(model.encode_text(inputs["input_ids"], mask))
    temperature = model.temperature
    errors.check(name + "sim_i2t", image_feat @ keys.texts.T / temperature, official["sim_i2t"])
    errors.check(name + "sim_t2i", text_feat @ keys.images.T / temperature, official["sim_t2i"])
    for key, soft in (("sim_i2t_targets", keys.soft_i2t), ("sim_t2i_targets", keys.soft_t2i)):
        # The official loss rounds the one-hot part to fp32 (as ours does), the vectors' targets do not.
        one_hot = (1 - alpha) * torch.eye(*soft.shape)
        errors.check(name + key, soft - one_hot + (1 - alpha) * one_hot.bool().to(soft), official[key])
    features = Features(image_feat, text_feat)
    sims = similarities(features, temperature, taught)
    check_weights(model, sims, official, errors, name)
    errors.check(name + "after_image_queue", teacher.image_queue.T, official["after_image_queue"], "packed")
    errors.check(name + "after_text_queue", teacher.text_queue.T, official["after_text_queue"], "packed")
    errors.check(name + "after_queue_ptr", teacher.pointer, official["after_queue_ptr"], "packed")
    _momentum(model, teacher, official, errors, name)
    check_gradients(pretraining, total, official, errors, name)


def _momentum(model: RelVLM, teacher: Teacher, official: Vectors, errors: Errors, name: str) -> None:
    """The teacher after its update; sums in the order of magnitude of their tensors' sizes."""
    after = to_official(model, "albef", teacher.state_dict())
    sums = official["after_momentum_sum"]
    found = torch.stack([after[key].double().sum() for key in sums])
    errors.check(name + "after_momentum_sum", found, torch.tensor(list(sums.values()), dtype=torch.float64), "packed")
    key = "vision_proj_m.weight"
    errors.check(f"{name}after_{key}", after[key], official[f"after_{key}"], "packed")
