"""What both families' vectors have in common."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from relvlm.convert.names import official_links
from relvlm.convert.parity.errors import Errors
from relvlm.data.batches.batch import Batch
from relvlm.encoders.packing import pack, unpack
from relvlm.losses.itc import itc_loss, shared_targets
from relvlm.losses.itm import negative_weights
from relvlm.model import RelVLM
from relvlm.pretraining.negatives import Negatives
from relvlm.pretraining.step import Pretraining

Vectors = dict[str, Any]


def check_text(
    model: RelVLM, ids: Tensor, mask: Tensor, official: Vectors, errors: Errors, layers: bool = True
) -> Tensor:
    """Text tokens; check the embeddings and, with `layers`, the tokens."""
    rows, cu = pack(ids, mask)
    embedded = unpack(model.text.embeddings(rows, cu), mask)
    errors.check("text_embedding_output", embedded, official["text_embedding_output"], rows=mask.bool())
    text = model.encode_text(ids, mask)
    if layers:
        errors.check("text_embeds", text, official["text_embeds"], rows=mask.bool())
    return text


def check_pair(
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


def itc_within(model: RelVLM, image: Tensor, text: Tensor, index: Tensor) -> Tensor:
    """Contrastive loss within the batch; what shares an index matches."""
    image_feat, text_feat = model.image_features(image), model.text_features(text)
    none = torch.zeros(len(image), len(text), dtype=torch.bool)
    soft = shared_targets(index, index)
    return itc_loss(image_feat, text_feat, image_feat, text_feat, model.temperature, 0, none, none, soft, soft)


def check_weights(model: RelVLM, sims: tuple[Tensor, Tensor], official: Vectors, errors: Errors, name: str) -> None:
    """What hard negatives are drawn by, of the similarities text to image and image to text."""
    for key, similarity in zip(("weights_t2i", "weights_i2t"), sims, strict=True):
        itself = torch.eye(len(similarity), dtype=torch.bool)
        weights = negative_weights(similarity, itself, model.config.itm_floor)
        errors.check(name + key, weights, official[key])


def check_temperature(
    pretraining: Pretraining,
    batch: Batch,
    inputs: Vectors,
    official: Vectors,
    errors: Errors,
    itc: dict[str, str],
) -> None:
    """The temperature is clamped before it is used."""
    names = itc | {"loss_itm": "itm", "loss_mlm": "mlm"}
    for key, case in official["temp_clamp"].items():
        fresh = fresh_copy(pretraining, 0.4)
        temperature = fresh.model.temperature
        with torch.no_grad():
            temperature.fill_(case["temp_in"])
        _, losses, _ = forward(fresh, batch, inputs)
        errors.check(f"temp_clamp {key}/temp_after", temperature[0], case["temp_after"], "packed")
        for name, ours in names.items():
            errors.check(f"temp_clamp {key}/{name}", losses[ours], case[name], "packed")


def forward(
    pretraining: Pretraining, batch: Batch, negatives: Vectors
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Logits of the heads, losses and their sum of the training forward, with the official hard negatives."""
    logits: dict[str, Tensor] = {}
    model = pretraining.model

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Tensor) -> None:
            logits.setdefault(name, output)  # later calls only see to it that there is a gradient

        return hook

    parts = {"itm": model.itm_head, "words": model.mlm_head.norm, "bbox": model.box_head}
    hooks = [part.register_forward_hook(keep(name)) for name, part in parts.items() if part is not None]
    given = Negatives.given(negatives["neg_image_idx"], negatives["neg_text_idx"])
    total, losses = pretraining(batch, negatives=given)
    for hook in hooks:
        hook.remove()
    logits["mlm"] = model.mlm_head.decoder(logits["words"])  # the loss itself takes them in chunks
    return logits, losses, total


def fresh_copy(pretraining: Pretraining, alpha: float | None = None) -> Pretraining:
    """A copy whose state a forward may change; with the teacher's weight set."""
    fresh = copy.deepcopy(pretraining)
    if fresh.teacher is not None and alpha is not None:
        fresh.teacher.config = replace(fresh.teacher.config, alpha=alpha)
    return fresh


def check_gradients(pretraining: Pretraining, total: Tensor, official: Vectors, errors: Errors, name: str) -> None:
    """Gradients under the official names; none at all is as good as zero."""
    total.backward()
    model = pretraining.model
    ours = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    family: Any = "xvlm" if pretraining.teacher is None else "albef"
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
