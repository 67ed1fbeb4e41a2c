"""Memory of one GPU by component, in bytes, for each ZeRO stage.

Activations are what autograd keeps for the backward pass, counted as multiples of a token's width from the modules'
code; `tests/plan/test_memory.py` compares with what is really kept. Workspaces, fragmentation and the CUDA context
are not in it: leave a tenth of the GPU free.
"""

from __future__ import annotations

from relvlm.config.vision import ViTConfig
from relvlm.plan.flops import Sizes
from relvlm.plan.workload import Workload

Bytes = dict[str, float]
# Tensors of a token's width that a layer keeps, feed-forward ratio 4: inputs of the linear layers and norms, Q, K, V
# and the attention's output, the feed-forward's product before GELU. The official codes' text layers keep what comes
# out of GELU as well, and dropout masks, a byte an element, as ours do where norms come first. QuickGELU keeps its
# sigmoid and its result.
TEXT_LAYER, CROSS_ATTENTION, VIT_LAYER, EMBEDDINGS = 12, 4, 12, 2
GELU, QUICK_GELU = 4, 8
TEXT_MASKS, CROSS_MASKS = 2, 1


def states(parameters: int, stage: int, gpus: int, element: int) -> Bytes:
    """Weights, gradients and AdamW's state, as DeepSpeed shards them (ZeRO stages 0 to 3).

    `element`: bytes of a weight; below 4, an fp32 master copy joins the two moments. ZeRO 1-3 keep one in fp32 too.
    """
    master = 4 if element < 4 or stage else 0
    optimizer = (8.0 + master) * parameters
    return {
        "weights": element * parameters / (gpus if stage == 3 else 1),
        "gradients": element * parameters / (gpus if stage >= 2 else 1),
        "optimizer": optimizer / (gpus if stage >= 1 else 1),
    }


def packed_activations(sizes: Sizes, work: Workload, element: int) -> Bytes:
    """Our step; `work` is the share of one GPU."""
    text = sizes.model.text
    groups = work.images * work.groups
    encoded = (2 if work.aligned else 1) * groups * work.tokens
    fused = (4 * groups if work.aligned else groups) + work.images * work.boxes
    read = (3 + work.masked) * groups + work.images * work.boxes if work.aligned else groups
    rows = fused * work.tokens * (sizes.model.fusion.layers - 1) + read
    images, tokens = work.images * work.encodes, sizes.kept_tokens(work)
    keys = images * tokens * 2 * text.width * sizes.model.fusion.layers
    last = fused * work.tokens * 3 * text.width  # keys and values of the rows that are not read
    return {
        "vision encoder": _vision(sizes, images, tokens, element),
        "text encoder": _text(sizes, encoded, element, official=False),
        "image K, V": element * (keys + images * tokens * sizes.image_width),
        "fusion layers": rows * _fused_row(sizes, element, official=False) + element * last,
        "MLM scores": _packed_words(sizes, work, element),
    }


def features(sizes: Sizes, work: Workload, element: int) -> Bytes:
    """Of a step in chunks: the gradients of ITC to the features of all of them, image and text of each group."""
    groups = work.images * work.groups if work.aligned else 0
    return {"features' gradients": 2.0 * element * groups * sizes.model.embed_dim}


def official_activations(sizes: Sizes, work: Workload, element: int) -> Bytes:
    """The official codes' step: rows of padding, K and V of every copy of an image, dense masks."""
    text, layers = sizes.model.text, sizes.model.fusion.layers
    groups = work.images * work.groups
    passes = (4 * groups if work.aligned else groups) + work.images * work.boxes
    copies = passes * sizes.image_tokens
    rows = passes * work.padded
    return {
        "vision encoder": _vision(sizes, work.images, sizes.image_tokens, element),
        "text encoder": _text(sizes, (2 if work.aligned else 1) * groups * work.padded, element, official=True),
        "image K, V": element * copies * (2 * text.width * layers + sizes.image_width),
        "fusion layers": rows * layers * _fused_row(sizes, element, official=True),
        "MLM scores": _words(sizes, work, element),
    }


def _text(sizes: Sizes, tokens: float, element: int, official: bool) -> float:
    """The text encoder on so many tokens."""
    text = sizes.model.text
    layer = element * (TEXT_LAYER + official * GELU) + _masks(sizes, TEXT_MASKS, official)
    return tokens * text.width * (text.layers * layer + element * EMBEDDINGS)


def _fused_row(sizes: Sizes, element: int, official: bool) -> float:
    """One row of a fusion layer."""
    tensors = TEXT_LAYER + CROSS_ATTENTION + official * GELU
    return sizes.model.text.width * (element * tensors + _masks(sizes, TEXT_MASKS + CROSS_MASKS, official))


def _masks(sizes: Sizes, count: int, official: bool) -> int:
    """Of dropout: none where the mask is drawn again."""
    text = sizes.model.text
    return count if text.dropout and (official or text.norm == "pre") else 0


def _vision(sizes: Sizes, images: int, tokens: int, element: int) -> float:
    vision, pixels = sizes.model.vision, 3 * sizes.model.image_size**2
    if isinstance(vision, ViTConfig):
        layer = VIT_LAYER + QUICK_GELU * (vision.kind == "clip_vit")
        kept = tokens * vision.width * (vision.layers * layer + EMBEDDINGS)
        return images * element * (kept + pixels)
    patches, width, kept = (sizes.model.image_size // vision.patch_size) ** 2, vision.width, 0
    for stage, depth in enumerate(vision.depths):
        if stage:
            patches, width = patches // 4, 2 * width
        kept += patches * width * depth * VIT_LAYER
    return images * element * (kept + pixels)


def _words(sizes: Sizes, work: Workload, element: int) -> float:
    """Word scores: the logits, and their fp32 log-softmax."""
    return work.images * work.groups * work.masked * sizes.words * (element + 4.0)


def _packed_words(sizes: Sizes, work: Workload, element: int) -> float:
    """The same up to as many masked words as the width is; of more, the gradient of the words instead."""
    width = sizes.model.text.width
    few = work.images * work.groups * work.masked <= width
    return _words(sizes, work, element) if few else float(element * sizes.words * width)
