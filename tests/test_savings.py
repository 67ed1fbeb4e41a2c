"""Every saving of the training step leaves losses and gradients as they are."""

from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch
from batches import joint_of, made_batch

from relvlm.config import FusionConfig, ModelConfig, MomentumConfig, SavingsConfig, TextConfig, VisionConfig
from relvlm.data.batch import Batch, distinct_texts
from relvlm.model import RelVLM
from relvlm.plan.workload import Workload

WORKS = {
    "captions": Workload("captions", 18, 1, 6, 16, masked=2),  # more masked words than the width: in chunks
    "entities": Workload("entities", 2, 3, 4, 8, masked=1, boxes=3),
    "mrc": Workload("mrc", 2, 3, 4, 8, relations=2),
}
MODEL = ModelConfig(
    image_size=32,
    embed_dim=16,
    vision=VisionConfig(width=32, layers=2, heads=2, patch_size=8),
    text=TextConfig(layers=2, heads=2, width=32, max_positions=16, dropout=0.0),
    fusion=FusionConfig(layers=2, heads=2),
    mrc_hidden=24,
)
SWIN = replace(
    MODEL, vision=VisionConfig(kind="swin", width=16, heads=2, patch_size=4, depths=[1, 1], window=4)
)
DROPPED = replace(MODEL, vision=replace(MODEL.vision, patch_keep=0.5))


def batch_with_equal_texts(kind: str) -> Batch:
    """Groups 0 and 2 say the same."""
    batch = made_batch(WORKS[kind], 32, 4, 50, 7)
    cu = batch.text_cu.tolist()
    length = cu[1]
    ids, masked = batch.text_ids.clone(), batch.mlm_ids
    ids = torch.cat([ids[: cu[2]], ids[:length], ids[cu[3] :]])
    masked = torch.cat([masked[: cu[2]], ids[:length], masked[cu[3] :]])
    lengths = [b - a for a, b in pairwise(cu)]
    lengths[2] = length
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    rows = torch.stack([offsets[:-1] + 1, offsets[:-1] + 2], 1).flatten()
    rows = rows if batch.mlm_row.numel() else rows[:0]
    keys = torch.arange(len(lengths))
    keys[2] = 0
    return replace(
        batch, text_ids=ids, text_cu=offsets.to(torch.int32), text_key=keys, mlm_ids=masked, mlm_row=rows,
        mlm_label=ids[rows], distinct=distinct_texts(keys.tolist(), offsets.tolist()),
    )  # fmt: skip


def outcome(
    config: ModelConfig, batch: Batch, first: bool = True
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Values and gradients in fp64; the negatives are the same each time, or follow on those of the call before."""
    state = torch.get_rng_state()
    torch.manual_seed(0)
    model = RelVLM(config, 50, 7).double()
    if model.teacher is not None:
        model.teacher.double()
    torch.set_rng_state(state)
    if first:
        torch.manual_seed(1)
    total, values = model(batch)
    total.backward()
    return values, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("saving", [f.name for f in fields(SavingsConfig)])
@pytest.mark.parametrize("kind", WORKS)
def test_without_a_saving_losses_and_gradients_are_the_same(saving: str, kind: str) -> None:
    batch = batch_with_equal_texts(kind)
    dear = replace(MODEL, savings=replace(MODEL.savings, **{saving: False}))
    assert_same(outcome(MODEL, batch), outcome(dear, batch))


@pytest.mark.parametrize("kind", WORKS)
@pytest.mark.parametrize("model", [MODEL, SWIN, DROPPED], ids=["vit", "swin", "dropped patches"])
def test_recomputed_layers_give_the_same_losses_and_gradients(model: ModelConfig, kind: str) -> None:
    batch = made_batch(WORKS[kind], 32, 4, 50, 7)
    assert_same(outcome(model, batch), outcome(replace(model, recompute=True), batch))


VSG = Workload("vsg", 4, 1, 9, 16, masked=3)


@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize("vision", ["vit", "late", "swin"])
def test_a_joint_step_is_the_sum_of_its_parts_alone(vision: str, one_pass: bool) -> None:
    works = [WORKS["captions"], replace(WORKS["entities"], images=4), VSG, replace(WORKS["mrc"], images=4)]
    parts = [made_batch(work, 32, 4, 50, 7, seed) for seed, work in enumerate(works)]
    parts = [replace(part, pixels=parts[0].pixels) for part in parts]
    joint = joint_of(parts)
    weights = [1.0, 0.5, 2.0, 3.0]
    sections = [s._replace(weight=w) for s, w in zip(joint.joint, weights, strict=True)]
    model = SWIN if vision == "swin" else MODEL
    if vision == "late":
        model = replace(MODEL, vision=replace(MODEL.vision, late_blocks=1))
        model = replace(model, fusion=replace(model.fusion, region_mask="late_vision"))
    model = replace(model, savings=replace(model.savings, one_pass=one_pass))

    values, gradients = outcome(model, replace(joint, joint=tuple(sections)))
    alone = [outcome(model, part, first=i == 0) for i, part in enumerate(parts)]
    expected = {
        f"{part.kind}/{name}": value
        for part, (found, _) in zip(parts, alone, strict=True)
        for name, value in found.items()
    }
    summed = {
        name: sum(weight * found[name] for weight, (_, found) in zip(weights, alone, strict=True))
        for name in gradients
    }
    assert_same((values, gradients), (expected, summed))


def test_a_joint_step_encodes_its_photos_once() -> None:
    parts = [made_batch(replace(work, images=3), 32, 4, 50, 7) for work in WORKS.values()]
    model, encoded = RelVLM(MODEL, 50, 7), []
    model.vision.register_forward_hook(lambda module, args, output: encoded.append(len(output)))
    model(joint_of(parts))
    assert encoded == [3]


def test_chunks_and_unique_texts_suit_the_momentum_teacher() -> None:
    batch = batch_with_equal_texts("captions")
    taught = replace(MODEL, momentum=MomentumConfig(enabled=True, queue=8))
    dear = replace(taught, savings=SavingsConfig(unique_texts=False, chunked_words=False))
    assert_same(outcome(taught, batch), outcome(dear, batch))


def test_equal_texts_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, encoded = batch_with_equal_texts("mrc"), []
    model = RelVLM(MODEL, 50, 7)
    model.text.register_forward_hook(lambda module, args, output: encoded.append(len(output)))
    model(batch)
    assert encoded == [len(batch.text_ids) - int(batch.text_cu[1])]


def test_recomputing_keeps_less() -> None:
    from stepping import kept_bytes

    batch = made_batch(WORKS["captions"], 32, 4, 50, 7)
    models = [RelVLM(config, 50, 7) for config in (MODEL, replace(MODEL, recompute=True))]
    kept, recomputed = (kept_bytes(lambda m=m: m(batch)[0], m, torch.float32) for m in models)
    assert recomputed < 0.5 * kept


def assert_same(found, expected) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-7, atol=1e-9, msg=name)
