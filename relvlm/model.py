"""RelVLM: encoders and heads, as a library for notebooks, evaluation and parity checks; the packed encoder is inside.

How they are trained is relvlm/pretraining's matter.

Legend: B images, S image tokens (P prefix + N patches), L padded text length, T packed tokens, G groups, D width,
E embedding width, V relations or words.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relvlm.config.schema import ModelConfig
from relvlm.data.text import Tokenizer
from relvlm.encoders.fusion import FusionEncoder
from relvlm.encoders.packing import gather_rows, pack, unpack
from relvlm.encoders.spans import fuse_spans
from relvlm.encoders.text import TextEncoder
from relvlm.encoders.vision import VisionEncoder
from relvlm.errors import UserError
from relvlm.losses.bbox import BoxHead
from relvlm.losses.itm import ITMHead
from relvlm.losses.mlm import MLMHead
from relvlm.losses.mrc import MRCHead
from relvlm_kernels import Regions


class RelVLM(nn.Module):
    """Any of ALBEF, X-VLM, ReALBEF and ReX-VLM, by the two switches of its config."""

    def __init__(self, config: ModelConfig, vocab_size: int, relations: int) -> None:
        super().__init__()
        self.config = config
        width = config.text.width
        self.vision = VisionEncoder(config.vision, config.image_size)
        self.text = TextEncoder(config.text, vocab_size)
        self.fusion = FusionEncoder(config.fusion, config.text, self.vision.width)
        self.image_projection = nn.Linear(self.vision.width, config.embed_dim)
        self.text_projection = nn.Linear(width, config.embed_dim)
        self.temperature = nn.Parameter(torch.tensor([config.temperature]))  # ZeRO refuses 0-dim parameters
        self.itm_head = ITMHead(width, config.itm_head)
        self.mlm_head = MLMHead(self.text.embeddings.word)
        self.box_head = BoxHead(width) if config.localisation else None
        self.mrc_head = MRCHead(width, config.mrc_hidden, relations) if config.relations else None

    @property
    def tokenizer(self) -> Tokenizer:
        """That of the checkpoint, set by `relvlm.load`; UserError where it came without."""
        if self._tokenizer is None:
            raise UserError("this model has no vocabulary (put its vocab.txt into the checkpoint's folder)")
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    _tokenizer: Tokenizer | None = None
    relation_names: list[str]  # these three are set by `relvlm.load` too
    sep: bool
    step: int

    def encode_image(self, pixels_BCHW: Tensor) -> Tensor:
        """Image tokens (B, P + N, Dv)."""
        return self.vision(pixels_BCHW)

    def encode_regions(self, pixels_BCHW: Tensor, image_index: Tensor, image_mask: Tensor) -> Tensor:
        """Tokens (R, P + N, Dv) of R regions: region r shows `image_mask[r]` (P + N) of image `image_index[r]`.

        For `fuse` with the same mask. How a mask acts on the tokens themselves is fusion.region_mask's matter.
        """
        if self.config.fusion.region_mask == "late_vision":
            return self.vision.masked_regions(pixels_BCHW, image_index, image_mask)
        tokens_RSD = self.vision(pixels_BCHW)[image_index.long()]
        whole = image_mask.bool().all(1)[:, None, None]
        return torch.where(whole, tokens_RSD, mean_first(tokens_RSD, image_mask))

    def encode_text(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Text tokens (B, L, D), zero where the mask of leading tokens is not set."""
        ids_T, cu = pack(ids_BL, mask_BL)
        return unpack(self.text(ids_T, cu), mask_BL)

    def encode_text_packed(self, ids_T: Tensor, cu: Tensor) -> Tensor:
        """Text tokens (T, D) of packed ids."""
        return self.text(ids_T, cu)

    def image_features(self, image_tokens: Tensor) -> Tensor:
        """(B, E), L2-normalised, of (B, S, Dv)."""
        return F.normalize(self.image_projection(image_tokens[:, 0]), dim=-1)

    def text_features(self, text_tokens: Tensor) -> Tensor:
        """(B, E), L2-normalised, of padded (B, L, D) or of the [CLS] rows (B, D)."""
        cls = text_tokens[:, 0] if text_tokens.dim() == 3 else text_tokens
        return F.normalize(self.text_projection(cls), dim=-1)

    def fuse(
        self,
        text_tokens: Tensor,
        text_mask: Tensor,
        image_tokens: Tensor,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """Fused text tokens (B, L, D), zero where `text_mask` is not set; text b looks at image b.

        `image_mask` (B, P + N): which tokens are seen, a box of patches or any others; ValueError where none is. With
        Swin the first token stands for the mean of the patches seen, whatever `image_tokens` has in its place.
        """
        rows_TD, cu = pack(text_tokens, text_mask)
        image = torch.arange(len(image_tokens), device=image_tokens.device, dtype=torch.int32)
        if image_mask is None:
            regions = Regions.whole(cu, image, self.vision.grid)
            return unpack(self.fusion(rows_TD, image_tokens, regions), text_mask)
        if not image_mask.any(1).all():
            raise ValueError("image_mask: each row must show a token")
        if self.vision.kind == "swin":
            image_tokens = mean_first(image_tokens, image_mask)
        tokens_KD, key_cu = pack(image_tokens, image_mask)
        return unpack(fuse_spans(self.fusion, rows_TD, cu, tokens_KD, key_cu, image.long()), text_mask)

    def match_logits(self, fused: Tensor) -> Tensor:
        """(B, 2) of fused (B, L, D); index 1 = match."""
        return self.itm_head(fused[:, 0])

    def mlm_logits(self, fused: Tensor) -> Tensor:
        """Word logits (..., V) of fused (..., D)."""
        return self.mlm_head(fused)

    def predict_boxes(self, fused: Tensor) -> Tensor:
        """(B, 4) as (cx, cy, w, h) in [0, 1], of fused (B, L, D); ValueError without localisation."""
        if self.box_head is None:
            raise ValueError("model.localisation is false: this model has no box head")
        return self.box_head(fused[:, 0])

    def relation_logits(self, fused_subject: Tensor, fused_object: Tensor) -> Tensor:
        """(B, V) of two fused (B, L, D); ValueError without relations."""
        if self.mrc_head is None:
            raise ValueError("model.relations is false: this model has no relation head")
        cls = torch.cat([fused_subject[:, 0], fused_object[:, 0]])
        index = torch.arange(len(fused_subject), device=cls.device)
        return self.mrc_head(cls, index, index + len(index))

    def match_pairs(
        self,
        image_tokens: Tensor,
        text_tokens_TD: Tensor,
        text_cu: Tensor,
        image_index: Tensor,
        text_index: Tensor,
    ) -> Tensor:
        """ITM logits (G, 2): pair g is packed text `text_index[g]` with image `image_index[g]`, in one pass."""
        return self.itm_head(self._fused_cls(image_tokens, text_tokens_TD, text_cu, image_index, text_index))

    def box_pairs(
        self,
        image_tokens: Tensor,
        text_tokens_TD: Tensor,
        text_cu: Tensor,
        image_index: Tensor,
        text_index: Tensor,
    ) -> Tensor:
        """`predict_boxes` (G, 4) of the pairs that `match_pairs` takes; ValueError without localisation."""
        if self.box_head is None:
            raise ValueError("model.localisation is false: this model has no box head")
        return self.box_head(self._fused_cls(image_tokens, text_tokens_TD, text_cu, image_index, text_index))

    def _fused_cls(
        self, image_tokens: Tensor, text_TD: Tensor, text_cu: Tensor, image_index: Tensor, text_index: Tensor
    ) -> Tensor:
        """[CLS] (G, D) of pairs."""
        rows, offsets = gather_rows(text_cu, text_index)
        regions = Regions.whole(offsets, image_index.to(torch.int32), self.vision.grid)
        return self.fusion(text_TD[rows], image_tokens, regions, offsets[:-1].long())


def mean_first(tokens_BSD: Tensor, mask_BS: Tensor) -> Tensor:
    """The tokens with the first one replaced by the mean of the patches in the mask, itself where there is none."""
    weight_BN1 = mask_BS[:, 1:, None].to(tokens_BSD.dtype)
    patches = weight_BN1.sum(1, keepdim=True)
    mean_B1D = (tokens_BSD[:, 1:] * weight_BN1).sum(1, keepdim=True) / patches.clamp(min=1)
    first_B1D = torch.where(patches > 0, mean_B1D, tokens_BSD[:, :1])
    return torch.cat([first_B1D, tokens_BSD[:, 1:]], dim=1)
