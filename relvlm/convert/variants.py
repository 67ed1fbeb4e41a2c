"""Files of ALBEF and X-VLM as they go round, brought to the names of the published checkpoints.

Wrappers leave a prefix; newer transformers save no `position_ids` and tied tensors once; a model fine-tuned for
retrieval has a BertModel (no `bert.` level, no MLM head) and no box head; ALBEF's momentum encoders are often cut off.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from relvlm.convert.links import Link, Tensors
from relvlm.convert.names import Family
from relvlm.errors import UserError

WRAPPERS = ("module.", "_orig_mod.", "model.")  # DDP, torch.compile, Lightning
VISION = {"albef": "visual_encoder.", "xvlm": "vision_encoder."}
# Heads and queues of downstream tasks, no part of what is pretrained
DOWNSTREAM = ("cls_head.", "text_decoder.", "text_decoder_m.", "bbox_head_m.", "idx_queue")
MLM_HEAD = "mlm_head."


@dataclass(frozen=True)
class Published:
    """Tensors with the published names, and the names in the file that have no use."""

    tensors: dict[str, Tensor]
    unused: list[str]


def published(tensors: Tensors, family: Family, origin: str) -> Published:
    """The file's tensors under the published names; UserError where it is of another family or task."""
    named = {_with_bert_level(name): tensor for name, tensor in _unwrapped(tensors).items()}
    check_family(named, family, origin)
    unused = sorted(name for name in named if name.startswith(DOWNSTREAM))
    return Published({name: tensor for name, tensor in named.items() if name not in unused}, unused)


def check_family(tensors: Iterable[str], family: Family, origin: str) -> None:
    """UserError naming the family that the tensors are of, where it is another."""
    names = list(tensors)
    found = _family(names)
    if found in VISION and found != family:
        raise UserError(f"{origin}: is a checkpoint of the family {found}, not {family}: relvlm convert {found} ...")
    if found != family:
        raise UserError(f"{origin}: is no checkpoint of ALBEF or X-VLM but {found}; first names: {sorted(names)[:5]}")
    missing = [f"{part}.weight" for part in ("vision_proj", "text_proj") if f"{part}.weight" not in names]
    missing += ["itm_head"] if not any(name.startswith("itm_head.") for name in names) else []
    if missing:
        raise UserError(
            f"{origin}: has no {', '.join(missing)}: pairs cannot be scored without it. Checkpoints of pretraining and "
            "of retrieval have it, those of VQA, NLVR and grounding may not"
        )


def complete(links: list[Link], tensors: Tensors) -> tuple[list[Link], dict[str, Tensor]]:
    """The links of what is there, and the tensors with those that follow from sizes or are tied to one that is there.

    The MLM head as a whole may be missing: a model to fine-tune or score has no need of it.
    """
    headless = not any("cls.predictions." in name and "predictions.decoder.weight" not in name for name in tensors)
    kept = [link for link in links if not (headless and MLM_HEAD in link.ours)]
    whole = dict(tensors)
    for link in kept:
        there = [name for name in link.theirs if name in tensors]
        if link.value is not None and not there:
            whole[link.theirs[0]] = link.value
        if link.how == "tied" and there:
            whole |= {name: whole[there[0]] for name in link.theirs if name not in tensors}
    return kept, whole


def _unwrapped(tensors: Tensors) -> dict[str, Tensor]:
    names = dict(tensors)
    while prefix := next((p for p in WRAPPERS if names and all(n.startswith(p) for n in names)), ""):
        names = {name.removeprefix(prefix): tensor for name, tensor in names.items()}
    return names


def _with_bert_level(name: str) -> str:
    for encoder in ("text_encoder.", "text_encoder_m."):
        if name.startswith((f"{encoder}embeddings.", f"{encoder}encoder.")):
            return f"{encoder}bert.{name.removeprefix(encoder)}"
    return name


def _family(names: list[str]) -> str:
    if "text_encoder.bert.encoder.layer.0.crossattention.self.query.weight" in names:
        return "BLIP (its text layers attend to the image from the first)"
    for family, prefix in VISION.items():
        if any(name.startswith(prefix) for name in names):
            return family
    if any(name.startswith(("text.embeddings.", "vision.backbone.")) for name in names):
        return "relvlm's own (give its folder, to go back)"
    if any(name.startswith(("vision_model.", "visual.", "text_model.")) for name in names):
        return "a CLIP (its vision tower may be named as init.vision)"
    if any(name.startswith(("bert.", "embeddings.", "encoder.layer")) for name in names):
        return "one encoder alone (name it as init.text or init.vision)"
    return "something else"
