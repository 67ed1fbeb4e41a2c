"""Heat: which patches a match rests on, for each token of the text. Gradient times input of the ITM logit.

Each token of the text is given image tokens of its own to look at, all equal: the logit is what it always is, and its
gradient falls apart into what each token saw. Summed over the text it is the gradient of the image tokens.

Legend: T tokens of the text, S image tokens (one prefix token, N patches), D widths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relvlm.encoders.spans import Spans
from relvlm.errors import UserError
from relvlm.explain.reading import Reading
from relvlm.model import RelVLM, mean_first


@dataclass(frozen=True)
class Heat:
    """`odds`: the logit of a match minus that of none; `token_TN`: what each patch, seen by each token, adds to it."""

    odds: float
    token_TN: Tensor
    reading: Reading

    @property
    def probability(self) -> float:
        """Of a match, as evaluation has it."""
        return torch.tensor(self.odds).sigmoid().item()

    @property
    def whole_N(self) -> Tensor:
        """Of all tokens together."""
        return self.token_TN.sum(0)

    def of_words(self, first: int, end: int) -> Tensor:
        """(N,) of the words `first` to `end`, half-open."""
        chosen = torch.tensor([first <= word < end for word in self.reading.word_T])
        return self.token_TN[chosen].sum(0)


def heat(model: RelVLM, tokens_SD: Tensor, reading: Reading) -> Heat:
    """Heat of one text on one image's tokens.

    A ViT's first token, its [CLS], is no patch and has no place on the map; a Swin's is the mean of the patches, which
    share its heat. UserError for a model that has diverged.
    """
    tokens, ids = len(reading.ids), torch.tensor(reading.ids)
    cu = torch.tensor([0, tokens], dtype=torch.int32)
    with torch.no_grad():
        text_TD = model.encode_text_packed(ids, cu)
    own_TSD = tokens_SD.detach().expand(tokens, -1, -1).clone().requires_grad_()
    seen_TSD = own_TSD
    if model.vision.kind == "swin":
        seen_TSD = mean_first(own_TSD, torch.ones(own_TSD.shape[:2], dtype=torch.bool))
    each = torch.arange(tokens + 1, dtype=torch.int32)
    spans = Spans(offsets=cu, query_cu=each, key_cu=each * tokens_SD.shape[0])
    with torch.enable_grad():
        cls_1D = model.fusion(text_TD, seen_TSD.flatten(0, 1), spans, torch.tensor([0]))
        no_match, match = model.itm_head(cls_1D)[0]
        (gradient_TSD,) = torch.autograd.grad(match - no_match, own_TSD)
    if not bool(torch.isfinite(gradient_TSD).all() and torch.isfinite(match - no_match)):
        raise UserError("heat: not finite (has the model diverged? take an earlier checkpoint)")
    return Heat((match - no_match).item(), (gradient_TSD * own_TSD.detach()).sum(-1)[:, 1:], reading)


def positive(heat_N: Tensor) -> Tensor:
    """(N,) that sums to 1: what speaks for a match; zeros where nothing does."""
    kept = heat_N.clamp(min=0)
    return kept / kept.sum().clamp(min=torch.finfo(kept.dtype).tiny)
