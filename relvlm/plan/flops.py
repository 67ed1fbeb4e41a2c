"""Forward FLOPs of a step by component (a multiply-add is two); training costs three times as much.

`packed` counts what this code computes, `official` what ALBEF's and X-VLM's does: every objective its own pass of
the fusion encoder over padded texts and copied images. `tests/plan/test_flops.py` compares both with PyTorch's count.

D text width, Dv image width, S image tokens, L text length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relvlm.config.schema import ModelConfig
from relvlm.config.vision import SwinConfig, ViTConfig
from relvlm.plan.workload import Workload

Flops = dict[str, float]
TRAINING = 3  # a backward pass computes two products for each of the forward's
BERT_WORDS, GQA_RELATIONS = 30_522, 310


@dataclass(frozen=True)
class Sizes:
    """What of a model the counts depend on."""

    model: ModelConfig
    words: int = BERT_WORDS
    relations: int = GQA_RELATIONS

    @property
    def image_width(self) -> int:
        return self.model.vision.output_width

    @property
    def image_tokens(self) -> int:
        return 1 + (self.model.image_size // self.model.vision.stride) ** 2

    def kept_tokens(self, work: Workload) -> int:
        """Image tokens that our step encodes: fewer where patches are dropped (not exact)."""
        if work.boxed:
            return self.image_tokens
        return 1 + self.model.vision.kept_patches(self.image_tokens - 1)


Count = Callable[[Sizes, Workload], Flops]


def packed(sizes: Sizes, work: Workload) -> Flops:
    """Our step: each image and text once, one pass over the rows that are read, K and V once per image."""
    groups, encoded = work.images * work.groups, work.images * work.encodes
    fused = (n * fused_text(sizes.model, work.tokens, read, keys) for n, read, keys in _looks(sizes, work))
    tokens = sizes.kept_tokens(work)
    return {
        "vision encoder": encoded * image_flops(sizes.model, tokens),
        "text encoder": (work.distinct + work.aligned) * groups * text_flops(sizes.model, work.tokens),
        "image K, V": encoded * keys_values(sizes, tokens),
        "fusion layers": groups * sum(fused),
    } | _heads(sizes, work)


def encoders(sizes: Sizes, work: Workload) -> Flops:
    """What a step in chunks does beforehand, for the features of all of them: the encoders' forward pass alone."""
    step = packed(sizes, work)
    return {"encoders beforehand": step["vision encoder"] + step["text encoder"]}


def trained(sizes: Sizes, works: Sequence[Workload], chunks: int = 1, count: Count = packed) -> Flops:
    """A step of one or several sections, forward and backward, in so many chunks; `count` is packed or official."""
    total: Counter[str] = Counter()
    for work in works:
        total.update({name: TRAINING * n for name, n in count(sizes, work).items()})  # type: ignore[arg-type]
        total.update(teacher(sizes, work, padded=count is official))  # type: ignore[arg-type]
        if chunks > 1 and any(other.aligned for other in works):
            total.update(encoders(sizes, work))  # type: ignore[arg-type]
    return dict(total)


def _looks(sizes: Sizes, work: Workload) -> list[tuple[float, float, float]]:
    """How often a group's text goes through the fusion encoder, how many rows are then read, and the keys seen."""
    keys = 1 + work.seen * (sizes.kept_tokens(work) - 1)
    if not work.aligned:
        return [(1, 1, keys)]
    boxes = work.boxes / work.groups
    return [(3, 1, keys), (1, work.masked, keys), (boxes, 1, sizes.image_tokens)]  # ITM, MLM, BBOX


def official(sizes: Sizes, work: Workload) -> Flops:
    """The official codes' step: padded texts; each pass of the fusion encoder projects copied images anew."""
    groups = work.images * work.groups
    text_passes = 2 if work.aligned else 1
    fusion_passes = (4 if work.aligned else 1) + work.boxes / work.groups
    length, keys = work.padded, sizes.image_tokens
    return {
        "vision encoder": work.images * image_flops(sizes.model, keys),
        "text encoder": text_passes * groups * text_flops(sizes.model, length),
        "image K, V": fusion_passes * groups * keys_values(sizes, keys),
        "fusion layers": fusion_passes * groups * padded_text(sizes.model, length, keys),
    } | _heads(sizes, work)


def teacher(sizes: Sizes, work: Workload, padded: bool) -> Flops:
    """ALBEF's momentum teacher, a forward pass without a backward: features, and scores of the masked words."""
    if not (sizes.model.momentum.enabled and work.aligned):
        return {}
    groups, length = work.images * work.groups, work.padded if padded else work.tokens
    keys = sizes.image_tokens if padded else sizes.kept_tokens(work)
    whole, read = padded_text(sizes.model, length, keys), fused_text(sizes.model, length, work.masked, keys)
    each = 2 * text_flops(sizes.model, length) + (whole if padded else read)
    words = work.masked * 2.0 * sizes.model.text.width * (sizes.model.text.width + sizes.words)
    shared = work.encodes or padded
    projected = keys_values(sizes, keys) * (work.groups if padded else shared)
    images = shared * image_flops(sizes.model, keys) + projected
    return {"momentum teacher": work.images * images + groups * (each + words)}


def image_flops(model: ModelConfig, tokens: int) -> float:
    """The vision encoder on one image; `tokens` of a ViT's go through its layers."""
    if isinstance(model.vision, SwinConfig):
        return _swin(model.vision, model.image_size)
    return _vit(model.vision, model.image_size, tokens)


def _vit(vision: ViTConfig, image_size: int, tokens: int) -> float:
    """Patches are dropped behind the patch embedding."""
    patches = (image_size // vision.patch_size) ** 2
    embedding = 2 * patches * 3 * vision.patch_size**2 * vision.width
    layer = _layer_token(vision.width, vision.mlp_ratio) + 4 * tokens * vision.width
    return embedding + vision.layers * tokens * layer


def _swin(vision: SwinConfig, image_size: int) -> float:
    """Attention within windows; between stages four patches are merged, of 4 D channels into 2 D."""
    patches, width = (image_size // vision.patch_size) ** 2, vision.width
    total = 2.0 * patches * 3 * vision.patch_size**2 * width
    for stage, depth in enumerate(vision.depths):
        if stage:
            patches, width = patches // 4, 2 * width
            total += 2 * patches * 2 * width * width
        window = min(vision.window**2, patches)
        total += depth * patches * (_layer_token(width, vision.mlp_ratio) + 4 * window * width)
    return total


def _layer_token(width: int, ratio: float) -> float:
    """Linear layers of a transformer layer, for one token: Q, K, V, output and feed-forward."""
    return 8 * width**2 + 4 * ratio * width**2


def text_flops(model: ModelConfig, length: float) -> float:
    """The text encoder on one text."""
    text = model.text
    return text.layers * length * (_layer_token(text.width, text.mlp_ratio) + 4 * length * text.width)


def keys_values(sizes: Sizes, tokens: int) -> float:
    """K and V of one image for all fusion layers."""
    model = sizes.model
    return model.fusion.layers * 4.0 * tokens * sizes.image_width * model.text.width


def padded_text(model: ModelConfig, length: float, keys: float) -> float:
    """All fusion layers on one text, but for the image's K and V."""
    return model.fusion.layers * length * _fusion_row(model, length, keys)


def fused_text(model: ModelConfig, length: float, read: float, keys: float) -> float:
    """The same where the last layer computes `read` rows, and of the others their K and V."""
    full = (model.fusion.layers - 1) * length * _fusion_row(model, length, keys)
    width = model.text.width
    last = read * (_fusion_row(model, length, keys) - 4 * width**2) + length * 4 * width**2
    return full + last


def _fusion_row(model: ModelConfig, length: float, keys: float) -> float:
    """One row of a fusion layer: self-attention, cross-attention (Q and output alone), feed-forward."""
    text = model.text
    linear = _layer_token(text.width, text.mlp_ratio) + 4 * text.width**2
    return linear + 4 * (length + keys) * text.width


def _heads(sizes: Sizes, work: Workload) -> Flops:
    """Heads and contrastive projections; the official codes, too, score masked rows alone (X-VLM)."""
    width, groups = sizes.model.text.width, work.images * work.groups
    if not work.aligned:
        hidden = sizes.model.mrc_hidden
        pairs = work.images * work.relations
        return {"MRC head": pairs * 2.0 * hidden * (2 * width + sizes.relations)}
    matching = 2 * width * (2 * width + 4) if sizes.model.itm_head == "mlp" else 4 * width
    embed = 2 * sizes.model.embed_dim * (width + sizes.image_width)
    flops = {
        "MLM head": groups * work.masked * 2.0 * width * (width + sizes.words),
        "ITM, ITC heads": groups * (3.0 * matching + embed),
    }
    if work.boxes:
        flops["box head"] = work.images * work.boxes * 2.0 * width * (2 * width + 8)
    return flops
