"""The formulas against FLOPs counted by PyTorch while the model runs, and against known figures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.batches import joint_of, made_batch
from support.official_way import OfficialWay
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from relvlm.config.load import load_config
from relvlm.config.schema import (
    DataConfig,
    FusionConfig,
    JointWeights,
    KindCounts,
    ModelConfig,
    MomentumConfig,
    TextConfig,
)
from relvlm.config.vision import SwinConfig, ViTConfig
from relvlm.model import RelVLM
from relvlm.plan.flops import Sizes, encoders, image_flops, official, packed, teacher
from relvlm.plan.workload import Workload, sections, workload, workloads
from relvlm.pretraining.step import Pretraining

ROOT = Path(__file__).resolve().parents[2]
RECIPE = load_config(ROOT / "configs/13m/rex_vlm.yaml")
MODEL = ModelConfig(
    image_size=64,
    embed_dim=32,
    vision=ViTConfig(width=48, layers=2, heads=4, patch_size=16),
    text=TextConfig(layers=2, heads=4, width=64, max_positions=64),
    fusion=FusionConfig(layers=3, heads=4),
    mrc_hidden=96,
    itm_head="mlp",
)
WORKS = [
    Workload("captions", 3, 1, 9, 16, masked=2),
    Workload("entities", 2, 3, 5, 8, masked=1, boxes=3),
    Workload("mrc", 2, 3, 5, 8, relations=2),
]


def _cross_flops(q, x, weight, *rest, **_):
    """Keys and values, and attention of whole-image groups alone: every query sees all S tokens."""
    return 2 * x.shape[:2].numel() * weight.numel() + 4 * q.numel() * x.shape[1]


def _varlen_flops(q, kv, cu_q, cu_k, *rest, **_):
    pairs = int(((cu_q[1:] - cu_q[:-1]) * (cu_k[1:] - cu_k[:-1])).sum())
    return 4 * pairs * q.shape[1] * q.shape[2]


def _pool_flops(h, subject, *rest, **_):
    weight = rest[1]
    return 2 * len(subject) * weight.numel()


def counted(run) -> int:
    ops = torch.ops.relvlm
    formulas = {
        ops.region_cross_attention: _raw(_cross_flops),
        ops.varlen_attention_kvpacked: _raw(_varlen_flops),
        ops.varlen_attention_qkvpacked: _raw(lambda qkv, cu, *rest, **_: _varlen_flops(qkv[:, 0], qkv, cu, cu)),
        ops.mrc_pool: _raw(_pool_flops),
    }
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:  # the CPU's flash attention goes uncounted
        run()
    return counter.get_total_flops()


def _raw(formula):
    formula._get_raw = True  # what torch.utils.flop_counter looks for: tensors, not shapes
    return formula


def batch_of(work: Workload, image_size: int = 64):
    """All texts of the mean length, all views whole, so that the formulas' averages are exact."""
    side = image_size // 16
    batch = made_batch(replace(work, padded=work.tokens), image_size, side, 90, 7)
    cu = torch.arange(0, work.images * work.groups + 1, dtype=torch.int32) * work.tokens
    ids = torch.randint(10, 90, (int(cu[-1]),))
    row = (cu[:-1, None].long() + 1 + torch.arange(work.masked)).flatten()
    box = torch.tensor([[0, 0, side, side]], dtype=torch.int32).expand(batch.groups, 4)
    regions = replace(batch.regions, offsets=cu, box=box)
    return replace(batch, text_ids=ids, mlm_ids=ids, regions=regions, mlm_row=row, mlm_label=ids[row])


@pytest.mark.parametrize("work", WORKS, ids=lambda w: w.kind)
@pytest.mark.parametrize("side", ["packed", "official"])
def test_formulas_agree_with_counted_flops(work: Workload, side: str) -> None:
    model, batch = RelVLM(MODEL, 90, 7), batch_of(work)
    sizes = Sizes(MODEL, 90, 7)
    if side == "packed":
        found, expected = counted(lambda: Pretraining(model)(batch)), packed(sizes, work)
    else:
        found = counted(lambda: OfficialWay(model, work.padded)(batch))
        expected = official(sizes, work)
    # not in the formulas: region means, similarities, heads run for their zero gradient
    assert found == pytest.approx(sum(expected.values()), rel=0.02)


@pytest.mark.parametrize("work", WORKS, ids=lambda w: w.kind)
def test_chunks_are_encoded_beforehand(work: Workload) -> None:
    step, chunks = Pretraining(RelVLM(MODEL, 90, 7)), [batch_of(work), batch_of(work)]
    expected = 2 * sum(encoders(Sizes(MODEL, 90, 7), work).values()) if work.aligned else 0
    assert counted(lambda: step.chunk_targets(chunks)) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("work", WORKS, ids=lambda w: w.kind)
def test_dropped_patches_are_not_counted(work: Workload) -> None:
    dropping = replace(MODEL, vision=replace(MODEL.vision, patch_keep=0.5))
    sizes, exact = Sizes(dropping, 90, 7), Sizes(MODEL, 90, 7)
    found, whole = (counted(lambda m=m: Pretraining(RelVLM(m, 90, 7))(batch_of(work))) for m in (dropping, MODEL))
    saved = sum(packed(exact, work).values()) - sum(packed(sizes, work).values())
    assert whole - found == pytest.approx(saved) and (saved > 0) == (work.kind == "captions")
    assert official(sizes, work) == official(exact, work)


@pytest.mark.parametrize("boxes", [0.0, 1.0], ids=["whole", "beside mrc"])
def test_a_joint_step_drops_patches_where_no_section_sees_boxes(boxes: float) -> None:
    data = DataConfig(joint_weights=JointWeights(entities=0, mrc=boxes), batch=KindCounts(joint=3))
    dropping = replace(MODEL, vision=replace(MODEL.vision, patch_keep=0.5))
    works = sections(data, "joint")
    batch = joint_of([batch_of(work) for work in works])
    found = counted(lambda: Pretraining(RelVLM(dropping, 90, 7))(batch))
    fewer, exact = (
        sum(sum(packed(Sizes(model, 90, 7), work).values()) for work in works) for model in (dropping, MODEL)
    )
    assert found == pytest.approx(fewer, rel=0.02)
    assert (fewer == exact) == bool(boxes)


@pytest.mark.parametrize("work", WORKS, ids=lambda w: w.kind)
def test_a_step_at_low_resolution_is_counted_as_a_smaller_models(work: Workload) -> None:
    small = batch_of(work, 48)
    found = counted(lambda: Pretraining(RelVLM(MODEL, 90, 7))(small))
    expected = packed(Sizes(replace(MODEL, image_size=48), 90, 7), work)
    assert found == pytest.approx(sum(expected.values()), rel=0.02)


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_the_momentum_teacher_is_counted_once(keep: float) -> None:
    vision = replace(MODEL.vision, patch_keep=keep)
    model = replace(MODEL, vision=vision, momentum=MomentumConfig(enabled=True, queue=8))
    sizes, work = Sizes(model, 90, 7), WORKS[0]
    found = counted(lambda: Pretraining(RelVLM(model, 90, 7))(batch_of(work)))
    expected = sum(packed(sizes, work).values()) + sum(teacher(sizes, work, padded=False).values())
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "plain", "ours"),
    [("captions", 67.5, 45.5), ("entities", 190.2, 48.1), ("mrc", 73.5, 40.7), ("vsg", 113.3, 64.5)],
)
def test_gigaflops_of_an_image_at_base_size(kind: str, plain: float, ours: float) -> None:
    sizes, work = Sizes(RECIPE.model), workload(RECIPE.data, kind)
    assert sum(official(sizes, work).values()) / work.images / 1e9 == pytest.approx(plain, abs=0.05)
    assert sum(packed(sizes, work).values()) / work.images / 1e9 == pytest.approx(ours, abs=0.05)


def test_vision_encoders_cost_what_is_published() -> None:
    """17.6 billion multiply-adds for ViT-B/16, 15.4 for Swin-B at 224 px (Liu et al., 2021, table 1: 15.4)."""
    swin = SwinConfig(width=128, heads=[4, 8, 16, 32], patch_size=4)
    assert image_flops(ModelConfig(), 197) / 2e9 == pytest.approx(17.6, abs=0.1)
    assert image_flops(ModelConfig(vision=swin), 50) / 2e9 == pytest.approx(15.4, abs=0.1)


def test_only_the_kinds_that_are_drawn_are_counted() -> None:
    assert set(workloads(load_config(ROOT / "configs/13m/realbef.yaml"))) == {"captions", "mrc", "vsg"}
