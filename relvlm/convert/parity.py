"""How far our outputs are from the official models', on their reference vectors.

Two routes: *plain*, one padded text with one image's tokens at a time through the library's methods; *packed*, the
training forward, where keys and values are projected once per image and only the rows that are read are computed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from relvlm import objectives
from relvlm.convert.names import official_links
from relvlm.convert.official import from_official, to_official
from relvlm.convert.vectors import IGNORED, albef_batch, xvlm_batch
from relvlm.data.batch import Batch
from relvlm.encoders.packing import pack, unpack
from relvlm.losses.bbox import bbox_losses, corners, generalised_iou, iou
from relvlm.losses.itc import itc_loss, shared_targets
from relvlm.losses.itm import negative_weights
from relvlm.model import RelVLM
from relvlm.objectives import Negatives
from relvlm_kernels import Regions

Vectors = dict[str, Any]


@dataclass(frozen=True)
class Error:
    """Largest difference of an output, as it is and over the largest official value (at least 1)."""

    vectors: str
    output: str
    route: str
    dtype: str
    absolute: float
    relative: float


class Errors(list[Error]):
    """What `check` found; names begin with the part of the vectors that the outputs are of."""

    def __init__(self, vectors: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.vectors, self.dtype = vectors, str(dtype).removeprefix("torch.")

    def check(self, output: str, found: Any, official: Any, route: str = "plain", rows: Any = ...) -> None:
        """Note the error of an output, at `rows` alone where given."""
        found, official = torch.as_tensor(found).detach()[rows], torch.as_tensor(official)[rows]
        if found.shape != official.shape:
            raise ValueError(f"{output}: shape {tuple(found.shape)}, official {tuple(official.shape)}")
        absolute = (found.double() - official.double()).abs().max().item()
        scale = max(1.0, official.double().abs().max().item())
        self.append(Error(self.vectors, output, route, self.dtype, absolute, absolute / scale))


def compare(file: Path, dtype: torch.dtype = torch.float64) -> Errors:
    """Every output of a file of vectors, both routes; fp64 is compared with the official fp64 run."""
    vectors: Vectors = torch.load(file, weights_only=True)
    errors = Errors(file.stem, dtype)
    family = vectors["config"]["model"]
    model = from_official(vectors["state_dict"], vectors["config"], family).to(dtype)
    if model.teacher is not None:
        model.teacher.to(dtype)
    official = vectors["outputs64" if dtype == torch.float64 else "outputs"]
    (_albef if family == "albef" else _xvlm)(model, vectors["inputs"], official, errors)
    return errors


def _albef(model: RelVLM, inputs: Vectors, official: Vectors, errors: Errors) -> None:
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    real = mask.bool()
    image = model.encode_image(inputs["images"])
    text = _text(model, ids, mask, official, errors)
    fused = _pair(model, image, None, text, mask, official, errors, "")
    masked = model.fuse(text, mask, image, inputs["image_atts_random"])
    errors.check("cross_masked_image_atts", masked, official["cross_masked_image_atts"], rows=real)
    words = model.mlm_logits(fused)
    errors.check("mlm_logits_unmasked_input", words, official["mlm_logits_unmasked_input"], rows=real)
    errors.check(
        "loss_itc_in_batch", _itc(model, image, text, torch.arange(len(ids))), official["loss_itc_in_batch"]
    )
    batch = albef_batch(inputs, model.vision.grid)
    for alpha in (0.0, 0.4):
        _albef_forward(model, batch, alpha, inputs, official[f"forward_alpha{alpha}"], errors)
    _temperature(model, batch, inputs, official, errors, {"loss_ita": "itc"})


def _albef_forward(
    model: RelVLM, batch: Batch, alpha: float, inputs: Vectors, official: Vectors, errors: Errors
) -> None:
    """One whole training forward: momentum update, soft targets, queues, losses, gradients."""
    name, mask = f"forward_alpha{alpha}/", inputs["attention_mask"]
    real, masked = mask.bool(), inputs["mlm_labels"] != IGNORED
    model = _fresh(model, alpha)
    teacher = model.teacher
    assert teacher is not None
    groups = len(mask)
    other = _fresh(model)  # the forward would move the teacher once more
    assert other.teacher is not None
    taught = objectives.teach(other, other.teacher, batch, torch.zeros(groups, groups, dtype=torch.bool))
    logits, losses, total = _forward(model, batch, official)
    for loss in ("loss_mlm", "loss_itm"):
        errors.check(name + loss, losses[loss.removeprefix("loss_")], official[loss], "packed")
    errors.check(name + "loss_ita", losses["itc"], official["loss_ita"], "packed")
    errors.check(name + "itm_logits", logits["itm"], official["itm_logits"], "packed")
    errors.check(name + "mlm_logits", logits["mlm"], official["mlm_logits"][masked], "packed")
    errors.check(
        name + "mlm_logits_m",
        taught.words.head(taught.words.rows_MD),
        official["mlm_logits_m"][masked],
        "packed",
    )
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
    keys, temperature = taught.keys, model.temperature
    errors.check(name + "sim_i2t", image_feat @ keys.texts.T / temperature, official["sim_i2t"])
    errors.check(name + "sim_t2i", text_feat @ keys.images.T / temperature, official["sim_t2i"])
    for key, soft in (("sim_i2t_targets", keys.soft_i2t), ("sim_t2i_targets", keys.soft_t2i)):
        # The official loss rounds the one-hot part to fp32 (as ours does), the vectors' targets do not.
        one_hot = (1 - alpha) * torch.eye(*soft.shape)
        errors.check(name + key, soft - one_hot + (1 - alpha) * one_hot.bool().to(soft), official[key])
    sims = objectives.similarities(image_feat, text_feat, temperature, taught)
    _weights(model, sims, official, errors, name)
    errors.check(name + "after_image_queue", teacher.image_queue.T, official["after_image_queue"], "packed")
    errors.check(name + "after_text_queue", teacher.text_queue.T, official["after_text_queue"], "packed")
    errors.check(name + "after_queue_ptr", teacher.pointer, official["after_queue_ptr"], "packed")
    _momentum(model, official, errors, name)
    _gradients(model, total, official, errors, name)


def _xvlm(model: RelVLM, inputs: Vectors, official: Vectors, errors: Errors) -> None:
    _text(model, inputs["image"]["text_ids"], inputs["image"]["text_atts"], official, errors, False)
    for part in ("image", "region"):
        _xvlm_part(model, inputs[part], official[part], errors, f"{part}/")
    image = xvlm_batch(inputs["image"], model.vision.grid)
    _temperature(model, image, inputs["image"], official, errors, {"loss_itc": "itc"})
    _boxes(inputs["box_losses"], official["box_losses"], errors)


def _xvlm_part(model: RelVLM, inputs: Vectors, official: Vectors, errors: Errors, name: str) -> None:
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
    _pair(model, image, atts, text, mask, official, errors, name)
    masked = model.fuse(model.encode_text(inputs["text_ids_masked"], mask), mask, image, atts)
    errors.check(name + "cross_masked_text", masked, official["cross_masked_text"], rows=mask.bool())
    places = inputs["masked_pos"]
    words = model.mlm_logits(masked.gather(1, places[..., None].expand(-1, -1, masked.shape[-1])))
    errors.check(name + "mlm_logits", words, official["mlm_logits"])
    boxes = model.predict_boxes(model.fuse(text, mask, full))
    errors.check(name + "pred_bbox", boxes, official["pred_bbox"])
    errors.check(name + "loss_itc", _itc(model, image, text, torch.arange(len(ids))), official["loss_itc"])
    half = torch.arange(len(ids)) // 2
    errors.check(name + "loss_itc_idx_div2", _itc(model, image, text, half), official["loss_itc_idx_div2"])
    features = model.image_features(image), model.text_features(text)
    _weights(model, objectives.similarities(*features, model.temperature), official, errors, name)
    if atts is not None:
        _box_losses(boxes, inputs["target_bbox"].to(dtype), inputs["is_image"], official, errors, name)

    batch = xvlm_batch(inputs, model.vision.grid)
    fresh = _fresh(model)
    logits, losses, total = _forward(fresh, batch, official)
    for loss in ("loss_itc", "loss_itm", "loss_mlm"):
        errors.check(name + loss, losses[loss.removeprefix("loss_")], official[loss], "packed")
    if "bbox" in losses:
        both = official["loss_bbox"] + official["loss_giou"]
        errors.check(name + "loss_bbox + loss_giou", losses["bbox"], both, "packed")
    errors.check(name + "itm_logits", logits["itm"], official["itm_logits"], "packed")
    rows, columns = (inputs["masked_ids"] != IGNORED).nonzero().unbind(1)
    order = (rows * ids.shape[1] + places[rows, columns]).argsort()  # ours are read in the text's order
    official_words = official["mlm_logits"][rows, columns][order]
    errors.check(name + "mlm_logits", logits["mlm"], official_words, "packed")
    _gradients(fresh, total, official, errors, name)


def _text(
    model: RelVLM, ids: Tensor, mask: Tensor, official: Vectors, errors: Errors, layers: bool = True
) -> Tensor:
    rows, cu = pack(ids, mask)
    embedded = unpack(model.text.embeddings(rows, cu), mask)
    errors.check("text_embedding_output", embedded, official["text_embedding_output"], rows=mask.bool())
    text = model.encode_text(ids, mask)
    if layers:
        errors.check("text_embeds", text, official["text_embeds"], rows=mask.bool())
    return text


def _pair(
    model: RelVLM, image: Tensor, atts: Tensor | None, text: Tensor, mask: Tensor,
    official: Vectors, errors: Errors, name: str,
) -> Tensor:  # fmt: skip
    """Image tokens, features, fused sequences and match logits of the pairs, and of all with all."""
    image_feat, text_feat = model.image_features(image), model.text_features(text)
    sims = image_feat @ text_feat.T / model.temperature
    errors.check(name + "image_embeds", image, official["image_embeds"])
    errors.check(name + "image_feat", image_feat, official["image_feat"])
    errors.check(name + "text_feat", text_feat, official["text_feat"])
    key = "sim_in_batch_i2t" if "sim_in_batch_i2t" in official else "sim_i2t"
    errors.check(name + key, sims, official[key])
    fused = model.fuse(text, mask, image, atts)
    errors.check(name + "cross_matched", fused, official["cross_matched"], rows=mask.bool())
    errors.check(name + "cross_matched_cls", fused[:, 0], official["cross_matched_cls"])
    errors.check(name + "itm_logits_matched", model.match_logits(fused), official["itm_logits_matched"])
    logits = []
    for i in range(len(image)):
        repeated = image[i].expand(len(text), *image.shape[1:])
        seen = None if atts is None else atts[i].expand(len(text), -1)
        logits.append(model.match_logits(model.fuse(text, mask, repeated, seen)))
    errors.check(name + "itm_logits_all_pairs", torch.stack(logits), official["itm_logits_all_pairs"])
    if atts is None:
        _packed_pairs(model, image, text, mask, official, errors, name)
    return fused


def _packed_pairs(
    model: RelVLM, image: Tensor, text: Tensor, mask: Tensor, official: Vectors, errors: Errors, name: str
) -> None:
    """All pairs at once, as evaluation scores them."""
    rows, cu = pack(text, mask)
    images, texts = torch.cartesian_prod(torch.arange(len(image)), torch.arange(len(text))).unbind(1)
    logits = model.match_pairs(image, rows, cu, images, texts).view(len(image), len(text), 2)
    errors.check(name + "itm_logits_all_pairs", logits, official["itm_logits_all_pairs"], "packed")


def _itc(model: RelVLM, image: Tensor, text: Tensor, index: Tensor) -> Tensor:
    """Contrastive loss within the batch; what shares an index matches."""
    image_feat, text_feat = model.image_features(image), model.text_features(text)
    none = torch.zeros(len(image), len(text), dtype=torch.bool)
    soft = shared_targets(index, index)
    return itc_loss(
        image_feat, text_feat, image_feat, text_feat, model.temperature, 0, none, none, soft, soft
    )


def _weights(
    model: RelVLM, sims: tuple[Tensor, Tensor], official: Vectors, errors: Errors, name: str
) -> None:
    for key, similarity in zip(("weights_t2i", "weights_i2t"), sims, strict=True):
        itself = torch.eye(len(similarity), dtype=torch.bool)
        weights = negative_weights(similarity, itself, model.config.itm_floor)
        errors.check(name + key, weights, official[key])


def _box_losses(
    boxes: Tensor, target: Tensor, is_image: Tensor, official: Vectors, errors: Errors, name: str
) -> None:
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


def _temperature(
    model: RelVLM, batch: Batch, inputs: Vectors, official: Vectors, errors: Errors, itc: dict[str, str]
) -> None:
    """The temperature is clamped before it is used."""
    names = itc | {"loss_itm": "itm", "loss_mlm": "mlm"}
    for key, case in official["temp_clamp"].items():
        fresh = _fresh(model, 0.4)
        with torch.no_grad():
            fresh.temperature.fill_(case["temp_in"])
        _, losses, _ = _forward(fresh, batch, inputs)
        errors.check(f"temp_clamp {key}/temp_after", fresh.temperature[0], case["temp_after"], "packed")
        for name, ours in names.items():
            errors.check(f"temp_clamp {key}/{name}", losses[ours], case[name], "packed")


def _forward(
    model: RelVLM, batch: Batch, negatives: Vectors
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Logits of the heads, losses and their sum of the training forward, with the official hard negatives."""
    logits: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Tensor) -> None:
            logits.setdefault(name, output)  # later calls only see to it that there is a gradient

        return hook

    hooks = [
        model.itm_head.register_forward_hook(keep("itm")),
        model.mlm_head.norm.register_forward_hook(keep("words")),
    ]
    given = Negatives.given(negatives["neg_image_idx"], negatives["neg_text_idx"])
    total, losses = model(batch, given)
    for hook in hooks:
        hook.remove()
    logits["mlm"] = model.mlm_head.decoder(logits["words"])  # the loss itself takes them in chunks
    return logits, losses, total


def _fresh(model: RelVLM, alpha: float | None = None) -> RelVLM:
    """A copy whose state a forward may change; with the teacher's weight set."""
    fresh = copy.deepcopy(model)
    if fresh.teacher is not None and alpha is not None:
        fresh.teacher.config = replace(fresh.teacher.config, alpha=alpha)
    return fresh


def _momentum(model: RelVLM, official: Vectors, errors: Errors, name: str) -> None:
    """The teacher after its update; sums in the order of magnitude of their tensors' sizes."""
    after = to_official(model, "albef")
    sums = official["after_momentum_sum"]
    found = torch.stack([after[key].double().sum() for key in sums])
    errors.check(
        name + "after_momentum_sum", found, torch.tensor(list(sums.values()), dtype=torch.float64), "packed"
    )
    key = "vision_proj_m.weight"
    errors.check(f"{name}after_{key}", after[key], official[f"after_{key}"], "packed")


def _gradients(model: RelVLM, total: Tensor, official: Vectors, errors: Errors, name: str) -> None:
    """Gradients under the official names; none at all is as good as zero."""
    total.backward()
    ours = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    family: Any = "xvlm" if model.teacher is None else "albef"
    theirs: dict[str, Tensor] = {}
    for link in official_links(model.config, family):
        if link.ours in ours:
            theirs |= zip(link.theirs, link.to_theirs(ours[link.ours]), strict=True)
    norms = {k: v or 0.0 for k, v in official["grad"]["norm"].items() if not _of_teacher(k)}
    found = torch.stack([theirs[key].norm() for key in norms])
    expected = torch.tensor(list(norms.values()), dtype=torch.float64)
    errors.check(name + "grad/norm", found, expected, "packed")
    for key, gradient in official["grad"]["full"].items():
        errors.check(f"{name}grad/full {key}", theirs[key], gradient, "packed")


def _of_teacher(key: str) -> bool:
    return key.split(".")[0].endswith("_m")
