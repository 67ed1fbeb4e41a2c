"""Masked language modelling on the fused tokens."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from relvlm.losses.precision import at_least_fp32

LAYER_NORM_EPS = 1e-12  # BERT's
SCORES_AT_ONCE = 2**24  # word scores held in memory: 64 MiB in fp32


class MLMHead(nn.Module):
    """BERT's prediction head, its decoder tied to the word embeddings: rows (M, D) -> logits (M, V)."""

    def __init__(self, word_embedding: nn.Embedding) -> None:
        super().__init__()
        vocab_size, width = word_embedding.weight.shape
        self.transform = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.decoder = Decoder(width, vocab_size)
        self.decoder.weight = word_embedding.weight

    def forward(self, rows_MD: Tensor) -> Tensor:
        return self.decoder(self.hidden(rows_MD))

    def hidden(self, rows_MD: Tensor) -> Tensor:
        """What the decoder takes, (M, D)."""
        return self.norm(F.gelu(self.transform(rows_MD)))

    def loss(self, rows_MD: Tensor, label_M: Tensor, soft: SoftWords | None = None) -> Tensor:
        """`mlm_loss` of these rows; of many, without the (M, V) logits in memory.

        Of none, 0 with gradient for all but the words, which have theirs as embeddings.
        """
        return self.decoder(self.hidden(rows_MD), label_M, soft)


class SoftWords(NamedTuple):
    """Soft targets to come: the momentum teacher's head, its fused rows (M, D), and their weight."""

    head: MLMHead
    rows_MD: Tensor
    alpha: float


class Decoder(nn.Linear):
    """Word logits of hidden rows or, given their labels, the loss. Under ZeRO-3 a module's own forward has weights."""

    def forward(  # type: ignore[override]
        self, hidden_MD: Tensor, label_M: Tensor | None = None, soft: SoftWords | None = None
    ) -> Tensor:
        if label_M is None:
            return F.linear(hidden_MD, self.weight, self.bias)
        if not len(label_M):
            return 0.0 * at_least_fp32(hidden_MD.sum() + self.bias.sum())
        if len(label_M) <= self.in_features:  # logits (M, V) are no larger than the words' gradient (V, D)
            teacher = () if soft is None else (soft.head(soft.rows_MD), soft.alpha)
            return mlm_loss(F.linear(hidden_MD, self.weight, self.bias), label_M, *teacher)
        loss: Tensor = _ChunkedCrossEntropy.apply(hidden_MD, self.weight, self.bias, label_M, soft)
        return loss / len(label_M)


def mlm_loss(logits_MV: Tensor, label_M: Tensor, teacher_MV: Tensor | None = None, alpha: float = 0.0) -> Tensor:
    """Mean cross-entropy in fp32 or more; 0 (with gradient) where no token is masked.

    With the teacher's logits, (1 - alpha) of it and alpha of the cross-entropy to the teacher (ALBEF, section 3.3).
    """
    logits_MV = at_least_fp32(logits_MV)
    total = F.cross_entropy(logits_MV, label_M, reduction="sum")
    if teacher_MV is not None:
        soft = at_least_fp32(teacher_MV).softmax(-1)
        total = (1 - alpha) * total + alpha * F.cross_entropy(logits_MV, soft, reduction="sum")
    return total / max(len(label_M), 1)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of hidden rows under a linear layer. The forward computes the gradients as well, chunk by
    chunk, so that scores of the whole vocabulary exist for a few rows at a time and are computed once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor,
        label_M: Tensor,
        soft: SoftWords | None,
    ) -> Tensor:
        precise = torch.float64 if hidden_MD.dtype == torch.float64 else torch.float32
        total = torch.zeros((), dtype=precise, device=hidden_MD.device)
        dhidden_MD = torch.empty_like(hidden_MD)
        dweight_VD = torch.zeros_like(weight_VD, dtype=precise)
        dbias_V = torch.zeros_like(bias_V, dtype=precise)
        step = max(1, SCORES_AT_ONCE // len(weight_VD))
        for start in range(0, len(label_M), step):
            part = slice(start, start + step)
            h_CD = hidden_MD[part]
            log_p_CV = at_least_fp32(F.linear(h_CD, weight_VD, bias_V)).log_softmax(-1)
            target_CV = _target(log_p_CV, label_M[part], soft, part)
            total -= (target_CV * log_p_CV).sum()
            dscores_CV = log_p_CV.exp_().sub_(target_CV)
            dbias_V += dscores_CV.sum(0)
            dscores_CV = dscores_CV.to(weight_VD.dtype)
            dhidden_MD[part] = dscores_CV @ weight_VD
            dweight_VD += dscores_CV.T @ h_CD.to(weight_VD.dtype)
        ctx.save_for_backward(dhidden_MD, dweight_VD.to(weight_VD.dtype), dbias_V.to(bias_V.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        dhidden, dweight, dbias = (d * grad.to(d.dtype) for d in ctx.saved_tensors)
        return dhidden, dweight, dbias, None, None


def _target(log_p_CV: Tensor, label_C: Tensor, soft: SoftWords | None, part: slice) -> Tensor:
    """One-hot labels, mixed with the teacher's probabilities where there is one."""
    target_CV = torch.zeros_like(log_p_CV).scatter_(1, label_C[:, None], 1.0)
    if soft is None:
        return target_CV
    soft_CV = at_least_fp32(soft.head(soft.rows_MD[part])).softmax(-1)
    return target_CV.mul_(1 - soft.alpha).add_(soft_CV, alpha=soft.alpha)
