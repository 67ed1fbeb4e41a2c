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
        ops.gelu_linear: _raw(lambda x, bias, weight, *rest, **_: 2 * len(x) * weight.numel()),
        ops.window_attention: _raw(lambda qkv, *rest, **_: 4 * qkv.numel() // 3 * qkv.shape[1]),
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


SIZES = Sizes(MODEL, 90, 7)
BOXES = replace(WORKS[1], seen=0.5)


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (WORKS[0], (9_512_064, 10_865_664, 1_880_064, 29_554_176, 118_272, 173_568)),
        (BOXES, (6_341_376, 11_950_080, 1_253_376, 41_131_008, 118_272, 347_136, 104_448)),
        (WORKS[2], (6_341_376, 5_975_040, 1_253_376, 8_334_336, 103_680)),
    ],
    ids=["captions", "entities", "mrc"],
)
def test_parts_of_our_step_worked_out_by_hand(work: Workload, expected: tuple[int, ...]) -> None:
    """E.g. a caption of 9 tokens, D = 64, that sees 17 of 48: a row of a fusion layer is 28 D^2 + 4 * 26 D = 121,344.

    Two layers on 9 rows, of the third 1 row without its K and V, and K and V of all, 36 D^2: 2,436,608, three times
    for ITM; with 2 rows 2,541,568 for MLM.
    """
    assert list(packed(SIZES, work).values()) == list(expected)


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (WORKS[0], (9_512_064, 19_660_800, 7_520_256, 70_926_336, 118_272, 173_568)),
        (BOXES, (6_341_376, 19_267_584, 18_800_640, 87_183_360, 118_272, 347_136, 104_448)),
        (WORKS[2], (6_341_376, 9_633_792, 3_760_128, 17_436_672, 103_680)),
    ],
    ids=["captions", "entities", "mrc"],
)
def test_parts_of_the_official_step_worked_out_by_hand(work: Workload, expected: tuple[int, ...]) -> None:
    """E.g. texts padded to 16: 2 layers * 16 * (24 D^2 + 4 * 16 D) = 3,276,800 a text of the text encoder."""
    assert list(official(SIZES, work).values()) == list(expected)


@pytest.mark.parametrize(
    ("work", "ours", "padded"),
    [
        (WORKS[0], 30_000_768, 48_902_784),
        (BOXES, 27_997_440, 46_924_032),
        (replace(BOXES, encodes=False), 20_402_688, 46_924_032),
    ],
    ids=["captions", "entities", "not first"],
)
def test_the_momentum_teacher_worked_out_by_hand(work: Workload, ours: int, padded: int) -> None:
    """E.g. of a caption 3,797,376 of an image with K, V, twice 1,810,944 of text, 2,541,568 fused, 39,424 of words."""
    taught = Sizes(replace(MODEL, momentum=MomentumConfig(enabled=True)), 90, 7)
    assert sum(teacher(taught, work, padded=False).values()) == ours
    assert sum(teacher(taught, work, padded=True).values()) == padded
    assert teacher(SIZES, work, padded=False) == teacher(taught, WORKS[2], padded=False) == {}


def test_of_a_later_section_no_image_is_encoded() -> None:
    first, later = (packed(SIZES, replace(WORKS[0], encodes=encodes)) for encodes in (True, False))
    assert later == first | {"vision encoder": 0, "image K, V": 0}
    assert encoders(SIZES, WORKS[0]) == {"encoders beforehand": 9_512_064 + 10_865_664}


def test_albefs_matching_head_is_one_layer() -> None:
    linear = Sizes(replace(MODEL, itm_head="linear"), 90, 7)
    assert packed(linear, WORKS[0])["ITM, ITC heads"] == 3 * (3 * 4 * 64 + 2 * 32 * (64 + 48))


@pytest.mark.parametrize(("window", "expected"), [(4, 327_680), (8, 425_984)])
def test_a_swin_worked_out_by_hand(window: int, expected: int) -> None:
    """64 patches of 8 channels, then 16 of 16: 49,152 of the embedding, 98,304 of a block, 16,384 of the merge and
    twice 81,920; in windows of 8 the first stage attends to all 64, the second to its 16.
    """
    swin = SwinConfig(width=8, depths=[1, 2], heads=[1, 2], window=window, patch_size=4, mlp_ratio=2.0)
    assert image_flops(replace(MODEL, image_size=32, vision=swin), 17) == expected


def test_vision_encoders_cost_what_is_published() -> None:
    """17.6 billion multiply-adds for ViT-B/16, 15.4 for Swin-B at 224 px (Liu et al., 2021, table 1: 15.4)."""
    swin = SwinConfig(width=128, heads=[4, 8, 16, 32], patch_size=4)
    assert image_flops(ModelConfig(), 197) / 2e9 == pytest.approx(17.6, abs=0.1)
    assert image_flops(ModelConfig(vision=swin), 50) / 2e9 == pytest.approx(15.4, abs=0.1)


def test_only_the_kinds_that_are_drawn_are_counted() -> None:
    assert set(workloads(load_config(ROOT / "configs/13m/realbef.yaml"))) == {"captions", "mrc", "vsg"}
