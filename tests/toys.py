"""The toy models that tests train and score, and a batch of five groups."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from relvlm.config.schema import FusionConfig, ModelConfig, MomentumConfig, TextConfig
from relvlm.config.vision import SwinConfig, ViTConfig
from relvlm.data.batches.batch import Batch
from relvlm.kinds import BatchKind
from relvlm.model import RelVLM
from relvlm.pretraining.savings import ALL_SAVINGS, Savings
from relvlm.pretraining.step import Pretraining
from relvlm_kernels import Regions

WORDS, RELATIONS = 50, 7
VIT = ModelConfig(
    image_size=32,
    embed_dim=16,
    vision=ViTConfig(width=32, layers=2, heads=2, patch_size=8, late_blocks=1),
    text=TextConfig(layers=2, heads=2, width=32, max_positions=16, dropout=0.0),
    fusion=FusionConfig(layers=2, heads=2),
    mrc_hidden=24,
)
SWIN = replace(VIT, vision=SwinConfig(width=16, depths=[1, 1], heads=[2, 4], window=4, patch_size=4))
LATE = replace(  # regions masked in two of three blocks
    VIT,
    vision=replace(VIT.vision, layers=3, late_blocks=2),
    fusion=replace(VIT.fusion, region_mask="late_vision"),
)
LATE_CLIP = replace(LATE, vision=replace(VIT.vision, kind="clip_vit", late_blocks=2))
DROPPING = replace(VIT, vision=replace(VIT.vision, patch_keep=0.5))
TAUGHT = replace(VIT, momentum=MomentumConfig(enabled=True, decay=0.9, queue=80))
NOISY = replace(VIT, text=replace(VIT.text, dropout=0.1))


def toy_model(config: ModelConfig = VIT) -> RelVLM:
    """The same weights each time."""
    torch.manual_seed(0)
    return RelVLM(config, WORDS, RELATIONS)


def toy_pretraining(
    config: ModelConfig = VIT, savings: Savings = ALL_SAVINGS, dtype: torch.dtype = torch.float32
) -> Pretraining:
    """The same weights each time."""
    torch.manual_seed(0)
    step = Pretraining(RelVLM(config, WORDS, RELATIONS), savings=savings).to(dtype)
    if step.teacher is not None:
        step.teacher.to(dtype)
    return step


def five_groups(kind: BatchKind) -> Batch:
    """Texts of 4, 3, 6, 3 and 5 tokens on a grid of 4 x 4 patches; texts 1 and 4 say the same.

    Regional kinds: three images, captions and vsg: five, of which the first and the last are the same.
    """
    torch.manual_seed(1)
    cu = F.pad(torch.tensor([4, 3, 6, 3, 5]).cumsum(0), (1, 0)).to(torch.int32)
    ids = torch.randint(5, WORDS, (int(cu[-1]),))
    ids[cu[:-1].long()] = 2
    regional = kind in ("entities", "mrc")
    whole = torch.tensor([True, False, False, True, False]) if kind == "entities" else torch.ones(5).bool()
    whole = torch.zeros(5).bool() if kind == "mrc" else whole
    box = torch.tensor([[0, 0, 4, 4], [0, 1, 2, 4], [3, 3, 4, 4], [0, 0, 4, 4], [1, 0, 3, 1]], dtype=torch.int32)
    box[whole] = torch.tensor([0, 0, 4, 4], dtype=torch.int32)
    image = torch.tensor([0, 0, 1, 1, 2] if regional else [0, 1, 2, 3, 4], dtype=torch.int32)
    row = torch.tensor([1, 5, 8, 14, 17])
    masked = ids.clone()
    masked[row] = 4
    return Batch(
        kind=kind, dataset="made", pixels=torch.randn(3 if regional else 5, 3, 32, 32),
        image_key=torch.tensor([10, 11, 12] if regional else [10, 11, 12, 13, 10]),
        text_ids=ids, text_key=torch.tensor([1, 2, 3, 4, 2]),
        regions=Regions(cu, image, box, whole, ~whole, (4, 4)),
        region=(~whole).nonzero().squeeze(1), target_box=torch.rand(5, 4) * 0.5 + 0.2,
        mlm_ids=masked, mlm_row=row, mlm_label=ids[row],
        subject=torch.tensor([0, 2, 2]), object=torch.tensor([1, 3, 4]), relation=torch.tensor([0, 6, 3]),
    )  # fmt: skip


def padded(batch: Batch, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch's packed ids as (G, L), and which are real."""
    lengths = batch.regions.offsets.diff()
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    out = torch.zeros(mask.shape, dtype=torch.long)
    out[mask] = ids
    return out, mask
