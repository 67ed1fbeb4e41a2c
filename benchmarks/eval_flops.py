"""FLOPs (2 a multiply-add) that scoring must spend, our way and the public way: what `eval.py` is held against."""

from __future__ import annotations

from collections.abc import Sequence

from relvlm.model import RelVLM
from relvlm.plan.flops import Sizes, fused_text, image_flops, keys_values, padded_text, text_flops


def flop_limits(
    model: RelVLM,
    lengths: Sequence[int],
    padded: int,
    photos: int,
    text_of_pair: Sequence[int],
    retrieval: bool,
) -> dict[str, float]:
    """FLOPs of the public way over ours, with (`cold`) and without (`warm`) encoding the images.

    `lengths`: tokens of each text. `retrieval`: both sides have all encodings.
    """
    config, pairs, sizes = model.config, len(text_of_pair), Sizes(model.config)
    tokens = sizes.image_tokens
    keys, image = keys_values(sizes, tokens), image_flops(config, tokens)
    public = pairs * (keys + padded_text(config, padded, tokens))
    ours = photos * keys + sum(fused_text(config, lengths[t], 1, tokens) for t in text_of_pair)
    if retrieval:
        return {"cold": public / ours}
    public += pairs * (image + text_flops(config, padded))
    ours += sum(text_flops(config, lengths[t]) for t in set(text_of_pair))
    return {"cold": public / (ours + photos * image), "warm": public / ours}
