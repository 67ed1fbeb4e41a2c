"""RelVLM: encoders and heads; a batch in, one loss per objective out.

Every text that looks at an image, from every objective, goes through the fusion encoder in one packed pass
(`forward`). The padded methods (`encode_text`, `fuse`, ...) serve notebooks, evaluation and parity checks; the
packed encoder is inside them too.

Legend: B images, S image tokens (P prefix + N patches), L padded text length, T packed tokens, G groups,
A groups of all ranks, D width, E embedding width, M masked tokens, R triplets, V relations or words.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relvlm.config import ModelConfig
from relvlm.data.batch import Batch
from relvlm.data.text import Tokenizer
from relvlm.encoders.fusion import FusionEncoder
from relvlm.encoders.packing import gather_rows, pack, unpack
from relvlm.encoders.text import TextEncoder
from relvlm.encoders.vision import VisionEncoder
from relvlm.fused_pass import FusedPass, views
from relvlm.losses.bbox import BoxHead, bbox_loss
from relvlm.losses.itc import itc_loss
from relvlm.losses.itm import IGNORED, ITMHead, hard_negatives, itm_loss
from relvlm.losses.mlm import MLMHead, mlm_loss
from relvlm.losses.mrc import MRCHead, mrc_loss
from relvlm.momentum import Teacher
from relvlm_kernels import Regions, box_mean

TEMPERATURE_RANGE = (0.001, 0.5)  # ALBEF clamps to it at each forward
Gather = Callable[[Tensor], tuple[Tensor, int]]


def one_rank(x: Tensor) -> tuple[Tensor, int]:
    """The gather of a single process: the rows of all ranks, and the first own one."""
    return x, 0


class RelVLM(nn.Module):
    """Any of ALBEF, X-VLM, ReALBEF and ReX-VLM, by the two switches of its config."""

    def __init__(
        self, config: ModelConfig, vocab_size: int, relations: int, gather: Gather = one_rank
    ) -> None:
        super().__init__()
        self.config = config
        self.gather = gather
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
        # in a tuple, where neither the optimizer nor ZeRO nor state_dict finds it
        teacher = Teacher(self, config.momentum, config.embed_dim) if config.momentum.enabled else None
        self._teacher = (teacher,)

    @property
    def teacher(self) -> Teacher | None:
        """The momentum teacher of ALBEF, if the config asks for one; its state is saved beside the model's."""
        return self._teacher[0]

    tokenizer: Tokenizer  # these four are set by `relvlm.load`
    relation_names: list[str]
    sep: bool
    step: int

    # ---- training ----------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss, and each objective's loss and accuracy (detached scalars) by name."""
        with torch.no_grad():
            self.temperature.clamp_(*TEMPERATURE_RANGE)
        image_BSD = self.vision(batch.pixels)
        losses, metrics, fused_ND = (self._relate if batch.kind == "mrc" else self._align)(batch, image_BSD)
        total = torch.stack(list(losses.values())).sum() + self._touch(batch.kind, image_BSD, fused_ND)
        return total, {name: value.detach() for name, value in (losses | metrics).items()}

    def _relate(self, batch: Batch, image_BSD: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """MRC: each entity's label with its visual context masked; then subject and object meet in the head."""
        assert self.mrc_head is not None
        text_TD = self.text(batch.text_ids, batch.text_cu)
        step = FusedPass(batch.text_cu, views(batch, self.vision.grid))
        groups = torch.arange(len(batch.whole), device=image_BSD.device)
        step.add(groups, groups)
        (entity_ED,) = step.run(self.fusion, text_TD, image_BSD)
        logits_RV = self.mrc_head(entity_ED, batch.subject, batch.object)
        losses = {"mrc": mrc_loss(logits_RV, batch.relation)}
        return losses, {"mrc_accuracy": _accuracy(logits_RV, batch.relation)}, entity_ED

    def _align(self, batch: Batch, image_BSD: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """A = ITC + ITM + MLM of every group, and BBOX of those that have a box; one pass of the fusion encoder."""
        cu = torch.cat(
            [batch.text_cu, batch.text_cu[1:] + len(batch.text_ids)]
        )  # the G texts, then them masked
        text_TD = self.text(torch.cat([batch.text_ids, batch.mlm_ids]), cu)
        image_GE = self._view_features(batch, image_BSD, self.image_projection)
        text_GE = self.text_features(text_TD[batch.text_cu[:-1].long()])
        keys = group_keys(batch)
        wrong_GG = false_negatives(keys, keys)
        view_of_text, text_of_view, target = self._negatives(image_GE, text_GE, wrong_GG)

        groups = torch.arange(len(keys), device=image_BSD.device)
        regions = (~batch.whole).nonzero().squeeze(1)
        step = FusedPass(cu, views(batch, self.vision.grid))
        step.add(torch.cat([groups, groups, text_of_view]), torch.cat([groups, view_of_text, groups]))
        step.add(len(groups) + groups, groups, batch.mlm_row)
        if batch.kind == "entities":
            step.add(regions, len(groups) + regions)
        matched_ND, masked_MD, *located = step.run(self.fusion, text_TD, image_BSD)

        logits_N2, logits_MV = self.itm_head(matched_ND), self.mlm_head(masked_MD)
        losses = {"itm": itm_loss(logits_N2, target)}
        if self.teacher is None:
            losses["itc"] = self._contrast(keys, image_GE, text_GE)
            losses["mlm"] = mlm_loss(logits_MV, batch.mlm_label)
        else:
            losses |= self._distil(self.teacher, batch, image_GE, text_GE, wrong_GG, logits_MV)
        for cls_ND in located:
            losses["bbox"] = bbox_loss(self.predict_boxes(cls_ND[:, None]), batch.target_box[regions])
        return losses, {"itm_accuracy": _accuracy(logits_N2, target)}, matched_ND

    def _contrast(self, keys_GK: Tensor, image_GE: Tensor, text_GE: Tensor) -> Tensor:
        """ITC over the groups of all ranks."""
        (image_AE, first), (text_AE, _) = self.gather(image_GE), self.gather(text_GE)
        keys_AK = self.gather(keys_GK)[0]
        wrong_i2t, wrong_t2i = false_negatives(keys_AK, keys_GK).T, false_negatives(keys_GK, keys_AK)
        return itc_loss(image_GE, text_GE, image_AE, text_AE, self.temperature, first, wrong_i2t, wrong_t2i)

    def _distil(
        self,
        teacher: Teacher,
        batch: Batch,
        image_GE: Tensor,
        text_GE: Tensor,
        wrong_GG: Tensor,
        logits_MV: Tensor,
    ) -> dict[str, Tensor]:
        """ITC against the queues and MLM, both with the momentum teacher's soft targets (ALBEF, section 3.3)."""
        with torch.no_grad():
            teacher.update(self)
            image_BSD = teacher.vision(batch.pixels)
            cu = torch.cat([batch.text_cu, batch.text_cu[1:] + len(batch.text_ids)])
            text_TD = teacher.text(torch.cat([batch.text_ids, batch.mlm_ids]), cu)
            image_key_GE = self._view_features(batch, image_BSD, teacher.image_projection)
            text_key_GE = F.normalize(teacher.text_projection(text_TD[batch.text_cu[:-1].long()]), dim=-1)
            keys = teacher.keys(image_key_GE, text_key_GE, self.temperature, wrong_GG)
            groups = torch.arange(len(wrong_GG), device=image_BSD.device)
            step = FusedPass(cu, views(batch, self.vision.grid))
            step.add(len(groups) + groups, groups, batch.mlm_row)
            teacher_MV = teacher.mlm_head(step.run(teacher.fusion, text_TD, image_BSD)[0])
        itc = itc_loss(
            image_GE, text_GE, keys.images, keys.texts, self.temperature, 0,
            keys.wrong_i2t, keys.wrong_t2i, keys.soft_i2t, keys.soft_t2i,
        )  # fmt: skip
        teacher.enqueue(self.gather(image_key_GE)[0], self.gather(text_key_GE)[0])
        return {"itc": itc, "mlm": mlm_loss(logits_MV, batch.mlm_label, teacher_MV, teacher.alpha)}

    def _negatives(
        self, image_GE: Tensor, text_GE: Tensor, wrong_GG: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A hard view for each text, a hard text for each view (local batch), and the ITM target of all 3 G."""
        similarity = text_GE.detach() @ image_GE.detach().T / self.temperature.detach()
        view_of_text, has_view = hard_negatives(similarity, wrong_GG)
        text_of_view, has_text = hard_negatives(similarity.T, wrong_GG.T)
        negative = torch.where(torch.cat([has_view, has_text]), 0, IGNORED)
        return view_of_text, text_of_view, torch.cat([torch.ones_like(view_of_text), negative])

    def _view_features(self, batch: Batch, image_BSD: Tensor, projection: nn.Module) -> Tensor:
        """(G, E), L2-normalised: [CLS] of a whole image, the mean of the box's patches of a region."""
        whole_GD = image_BSD[batch.image_index.long(), 0]
        region_GD = box_mean(image_BSD, batch.box, batch.image_index, self.vision.grid)
        return F.normalize(projection(torch.where(batch.whole[:, None], whole_GD, region_GD)), dim=-1)

    def _touch(self, kind: str, image_BSD: Tensor, fused_ND: Tensor) -> Tensor:
        """0, with a gradient for the parameters that this kind of batch leaves out: ZeRO needs one for each."""
        row = fused_ND[:1]
        idle: list[Tensor] = []
        if kind == "mrc":
            idle += [self.itm_head(row), self.mlm_head(row), self.temperature]
            idle += [self.image_projection(image_BSD[:1, 0]), self.text_projection(row)]
        if self.box_head is not None and kind != "entities":
            idle.append(self.box_head(row))
        if self.mrc_head is not None and kind != "mrc":
            first = torch.zeros(1, dtype=torch.long, device=row.device)
            idle.append(self.mrc_head(row, first, first))
        return 0.0 * sum((x.float().sum() for x in idle), start=row.float().sum())

    # ---- as a library ------------------------------------------------------------------------------------

    def encode_image(self, pixels_BCHW: Tensor) -> Tensor:
        """Image tokens (B, P + N, Dv)."""
        return self.vision(pixels_BCHW)

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
        """Fused text tokens (B, L, D); text b looks at image b.

        `image_mask` (B, P + N) bool must be a box of patches, the prefix set or not; ValueError where it is not.
        """
        rows_TD, cu = pack(text_tokens, text_mask)
        image = torch.arange(len(image_tokens), device=image_tokens.device, dtype=torch.int32)
        regions = Regions.whole(cu, image, self.vision.grid)
        if image_mask is not None:
            regions = Regions.from_mask(cu, image, image_mask, self.vision.grid)
        return unpack(self.fusion(rows_TD, image_tokens, regions), text_mask)

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
        rows, offsets = gather_rows(text_cu, text_index)
        regions = Regions.whole(offsets, image_index.to(torch.int32), self.vision.grid)
        return self.itm_head(self.fusion(text_tokens_TD[rows], image_tokens, regions, offsets[:-1].long()))


def group_keys(batch: Batch) -> Tensor:
    """(G, 3) int64: text, image and whole-image flag of each group, for `false_negatives`."""
    image_key = batch.image_key[batch.image_index.long()]
    return torch.stack([batch.text_key, image_key, batch.whole.long()], dim=1)


def false_negatives(texts_XK: Tensor, views_YK: Tensor) -> Tensor:
    """(X, Y) bool: text x is as true of view y as its own. Keys are those of `group_keys`.

    True for the same text, and for a whole image under any text of that same image.
    """
    same_text = texts_XK[:, None, 0] == views_YK[None, :, 0]
    same_image = texts_XK[:, None, 1] == views_YK[None, :, 1]
    return same_text | (same_image & views_YK[None, :, 2].bool())


def _accuracy(logits: Tensor, target: Tensor) -> Tensor:
    counted = target != IGNORED
    return ((logits.argmax(-1) == target) & counted).sum() / counted.sum().clamp(min=1)
