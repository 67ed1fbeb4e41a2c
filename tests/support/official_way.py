"""The step as ALBEF's and X-VLM's codes compute it, with modern attention (SDPA), on a relvlm model's own weights.

Every objective has its own pass of the fusion encoder over padded texts and copied images; masks are dense. It is what
`train_step.py` measures against, and gives the losses of `Pretraining.forward` to rounding.

Legend: G groups, L padded text length, S image tokens, H heads, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relvlm.data.batches.batch import Batch
from relvlm.encoders.fusion import FusionLayer
from relvlm.encoders.text import Residual, SelfAttention
from relvlm.losses.bbox import bbox_loss
from relvlm.losses.itc import itc_loss
from relvlm.losses.itm import hard_negatives, itm_loss
from relvlm.losses.mlm import mlm_loss
from relvlm.losses.mrc import mrc_loss
from relvlm.model import RelVLM
from relvlm.pretraining.negatives import false_negatives, group_keys
from relvlm_kernels.regions import box_mask


class Texts(NamedTuple):
    """Padded tokens (G, L, D) and which of them are real (G, L)."""

    tokens: Tensor
    mask: Tensor


class Views(NamedTuple):
    """Image tokens copied for each group (G, S, Dv), and which of them it sees (G, S)."""

    tokens: Tensor
    mask: Tensor


class OfficialWay(nn.Module):
    """`forward` returns the total loss; `padded_length`: every text is padded to it."""

    def __init__(self, model: RelVLM, padded_length: int) -> None:
        super().__init__()
        self.model, self.length = model, padded_length

    def forward(self, batch: Batch) -> Tensor:
        image_BSD = self.model.vision(batch.pixels)
        return torch.stack(list(self._losses(batch, image_BSD).values())).sum()

    def _losses(self, batch: Batch, image_BSD: Tensor) -> dict[str, Tensor]:
        model, views = self.model, self._views(batch, image_BSD)
        texts = self._encode(batch, batch.text_ids)
        if batch.kind == "mrc":
            assert model.mrc_head is not None
            entity_GD = self._fuse(texts, views)[:, 0]
            return {"mrc": mrc_loss(model.mrc_head(entity_GD, batch.subject, batch.object), batch.relation)}

        image_GE = F.normalize(model.image_projection(views.tokens[:, 0]), dim=-1)
        text_GE = F.normalize(model.text_projection(texts.tokens[:, 0]), dim=-1)
        wrong_GG = false_negatives(*[group_keys(batch)] * 2)
        contrast = itc_loss(image_GE, text_GE, image_GE, text_GE, model.temperature, 0, wrong_GG.T, wrong_GG)
        losses = {"itc": contrast, "itm": self._match(texts, views, image_GE, text_GE, wrong_GG)}
        words_GLD = self._fuse(self._encode(batch, batch.mlm_ids), views)
        masked_MD = words_GLD[texts.mask][batch.mlm_row]
        losses["mlm"] = mlm_loss(model.mlm_head(masked_MD), batch.mlm_label)
        if batch.kind == "entities":
            losses["bbox"] = self._locate(batch, texts, image_BSD)
        return losses

    def _match(self, texts: Texts, views: Views, image_GE: Tensor, text_GE: Tensor, wrong_GG: Tensor) -> Tensor:
        similarity = (text_GE @ image_GE.T).detach() / self.model.temperature.detach()
        view_of_text, _ = hard_negatives(similarity, wrong_GG)
        text_of_view, _ = hard_negatives(similarity.T, wrong_GG.T)
        positive = self._fuse(texts, views)[:, 0]
        pairs = (
            Texts(*(torch.cat([x, x[text_of_view]]) for x in texts)),
            Views(*(torch.cat([x[view_of_text], x]) for x in views)),
        )
        cls_ND = torch.cat([positive, self._fuse(*pairs)[:, 0]])
        target = torch.zeros(len(cls_ND), dtype=torch.long, device=cls_ND.device)
        target[: len(positive)] = 1
        return itm_loss(self.model.itm_head(cls_ND), target)

    def _locate(self, batch: Batch, texts: Texts, image_BSD: Tensor) -> Tensor:
        whole = Views(image_BSD[batch.regions.image.long()], torch.ones_like(image_BSD[..., 0]).bool())
        whole = Views(whole.tokens, whole.mask[batch.regions.image.long()])
        boxes = self.model.predict_boxes(self._fuse(texts, whole))
        return bbox_loss(boxes[~batch.whole], batch.target_box[~batch.whole])

    def _views(self, batch: Batch, image_BSD: Tensor) -> Views:
        """A region's first token is the mean of its patches (X-VLM with Swin), that of a whole image its [CLS]."""
        seen_GN = box_mask(batch.regions.box, self.model.vision.grid)
        copies_GSD = image_BSD[batch.regions.image.long()]
        weights = seen_GN.to(copies_GSD.dtype) / seen_GN.sum(1, keepdim=True)
        mean_GD = torch.einsum("gn,gnd->gd", weights, copies_GSD[:, 1:])
        first_GD = torch.where(batch.whole[:, None], copies_GSD[:, 0], mean_GD)
        tokens = torch.cat([first_GD[:, None], copies_GSD[:, 1:]], dim=1)
        return Views(tokens, F.pad(seen_GN, (1, 0), value=True))

    def _encode(self, batch: Batch, ids_T: Tensor) -> Texts:
        lengths = batch.regions.offsets.diff().long()
        mask = torch.arange(self.length, device=ids_T.device) < lengths[:, None]
        ids_GL = torch.zeros(mask.shape, dtype=torch.long, device=ids_T.device)
        ids_GL[mask] = ids_T
        text, embeddings = self.model.text, self.model.text.embeddings
        places = embeddings.position.weight[: self.length]
        x = embeddings.word(ids_GL) + places + embeddings.token_type.weight[0]
        x = embeddings.dropout(embeddings.norm(x))
        for layer in text.layers:
            x = _residual(layer.attention, x, lambda y, a: _self_attention(a, y, mask))
            x = _residual(layer.feed_forward, x, lambda y, ffn: nn.Sequential.forward(ffn, y))
        return Texts(text.norm(x), mask)

    def _fuse(self, texts: Texts, views: Views) -> Tensor:
        x = texts.tokens
        for layer in self.model.fusion.layers:
            assert isinstance(layer, FusionLayer)
            x = _residual(layer.attention, x, lambda y, a: _self_attention(a, y, texts.mask))
            x = _residual(layer.cross_attention, x, lambda y, a: _cross_attention(a, y, views))
            x = _residual(layer.feed_forward, x, lambda y, ffn: nn.Sequential.forward(ffn, y))
        return self.model.fusion.norm(x)


def longest_text(batch: Batch) -> int:
    """Tokens of the longest text, to which some codes trim a batch."""
    return int(batch.regions.offsets.diff().max())


def _residual(block: Residual, x: Tensor, run) -> Tensor:
    y = x + block.dropout(run(block.norm(x) if block.pre else x, block.inner))
    return y if block.pre else block.norm(y)


def _self_attention(module: SelfAttention, x_GLD: Tensor, mask_GL: Tensor) -> Tensor:
    q, k, v = (_heads(part, module.heads) for part in module.qkv(x_GLD).chunk(3, dim=-1))
    return module.out(_attend(module, q, k, v, mask_GL))


def _cross_attention(module, x_GLD: Tensor, views: Views) -> Tensor:
    q = _heads(module.query(x_GLD), module.heads)
    k, v = (_heads(part, module.heads) for part in module.kv(views.tokens).chunk(2, dim=-1))
    return module.out(_attend(module, q, k, v, views.mask))


def _attend(module, q_GHLD: Tensor, k_GHSD: Tensor, v_GHSD: Tensor, mask_GS: Tensor) -> Tensor:
    dropout = module.dropout if module.training else 0.0
    out_GHLD = F.scaled_dot_product_attention(q_GHLD, k_GHSD, v_GHSD, mask_GS[:, None, None], dropout)
    return out_GHLD.transpose(1, 2).flatten(2)


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
