"""Image-text contrastive loss (ALBEF, section 3.2), over all ranks' groups."""

from __future__ import annotations

import torch
from torch import Tensor

from relvlm.losses.precision import at_least_fp32


def itc_loss(
    image_GE: Tensor,
    text_GE: Tensor,
    images_AE: Tensor,
    texts_AE: Tensor,
    temperature: Tensor,
    first: int,
    false_i2t_GA: Tensor,
    false_t2i_GA: Tensor,
    soft_i2t_GA: Tensor | None = None,
    soft_t2i_GA: Tensor | None = None,
) -> Tensor:
    """Mean of image->text and text->image cross-entropy in fp32 or more, for the own G groups against all A.

    Row g matches column `first` + g. `false_i2t_GA[g, a]`: text a also describes image g; `false_t2i_GA[g, a]`:
    text g also describes image a; such pairs count neither way. The soft targets, where given, replace one-hot ones
    (momentum distillation).
    """
    i2t = _cross_entropy(image_GE, texts_AE, temperature, first, false_i2t_GA, soft_i2t_GA)
    t2i = _cross_entropy(text_GE, images_AE, temperature, first, false_t2i_GA, soft_t2i_GA)
    return (i2t + t2i) / 2


def _cross_entropy(
    rows: Tensor, columns: Tensor, temperature: Tensor, first: int, ignored: Tensor, soft: Tensor | None
) -> Tensor:
    logits = at_least_fp32(rows) @ at_least_fp32(columns).T / at_least_fp32(temperature)
    target = first + torch.arange(len(rows), device=rows.device)
    ignored = ignored.scatter(1, target[:, None], False)
    log_p = logits.masked_fill(ignored, torch.finfo(logits.dtype).min).log_softmax(-1)
    if soft is None:
        return -log_p.gather(1, target[:, None]).mean()
    return -(soft * log_p.masked_fill(ignored, 0.0)).sum(-1).mean()


def shared_targets(own_G: Tensor, all_A: Tensor) -> Tensor:
    """Soft targets (G, A) that share the weight among all columns of the same index (X-VLM, `idx`)."""
    same_GA = (own_G[:, None] == all_A[None, :]).float()
    return same_GA / same_GA.sum(1, keepdim=True)
