"""Every saving of the training step leaves losses and gradients as they are."""

from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch
from support.batches import joint_of, made_batch
from toys import DROPPING, LATE, SWIN, TAUGHT, VIT, toy_pretraining

from relvlm.config.schema import ModelConfig
from relvlm.data.batches.batch import Batch, distinct_texts
from relvlm.plan.workload import Workload
from relvlm.pretraining.savings import ALL_SAVINGS, Savings

WORKS = {
    "captions": Workload("captions", 18, 1, 6, 16, masked=2),  # more masked words than the width: in chunks
    "entities": Workload("entities", 2, 3, 4, 8, masked=1, boxes=3),
    "mrc": Workload("mrc", 2, 3, 4, 8, relations=2),
}


def batch_with_equal_texts(kind: str) -> Batch:
    """Groups 0 and 2 say the same."""
    batch = made_batch(WORKS[kind], 32, 4, 50, 7)
    cu = batch.regions.offsets.tolist()
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
    regions = replace(batch.regions, offsets=offsets.to(torch.int32))
    return replace(
        batch, text_ids=ids, regions=regions, text_key=keys, mlm_ids=masked, mlm_row=rows,
        mlm_label=ids[rows], distinct=distinct_texts(keys.tolist(), offsets.tolist()),
    )  # fmt: skip


def outcome(
    config: ModelConfig, batch: Batch, savings: Savings = ALL_SAVINGS, first: bool = True
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Values and gradients in fp64; the negatives are the same each time, or follow on those of the call before."""
    state = torch.get_rng_state()
    step = toy_pretraining(config, savings, torch.float64)
    torch.set_rng_state(state)
    if first:
        torch.manual_seed(1)
    total, values = step(batch)
    total.backward()
    return values, {name: p.grad for name, p in step.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("saving", [f.name for f in fields(Savings)])
@pytest.mark.parametrize("kind", WORKS)
def test_without_a_saving_losses_and_gradients_are_the_same(saving: str, kind: str) -> None:
    batch = batch_with_equal_texts(kind)
    dear = replace(ALL_SAVINGS, **{saving: False})
    assert_same(outcome(VIT, batch), outcome(VIT, batch, dear))


@pytest.mark.parametrize("kind", WORKS)
@pytest.mark.parametrize("model", [VIT, SWIN, DROPPING], ids=["vit", "swin", "dropped patches"])
def test_recomputed_layers_give_the_same_losses_and_gradients(model: ModelConfig, kind: str) -> None:
    batch = made_batch(WORKS[kind], 32, 4, 50, 7)
    assert_same(outcome(model, batch), outcome(replace(model, recompute=True), batch))


VSG = Workload("vsg", 4, 1, 9, 16, masked=3)


@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize("model", [VIT, LATE, SWIN], ids=["vit", "late", "swin"])
def test_a_joint_step_is_the_sum_of_its_parts_alone(model: ModelConfig, one_pass: bool) -> None:
    works = [WORKS["captions"], replace(WORKS["entities"], images=4), VSG, replace(WORKS["mrc"], images=4)]
    parts = [made_batch(work, 32, 4, 50, 7, seed) for seed, work in enumerate(works)]
    parts = [replace(part, pixels=parts[0].pixels) for part in parts]
    joint = joint_of(parts)
    weights = [1.0, 0.5, 2.0, 3.0]
    sections = [s._replace(weight=w) for s, w in zip(joint.joint, weights, strict=True)]
    savings = replace(ALL_SAVINGS, one_pass=one_pass)
    values, gradients = outcome(model, replace(joint, joint=tuple(sections)), savings)
    alone = [outcome(model, part, savings, first=i == 0) for i, part in enumerate(parts)]
    expected = {
        f"{part.kind}/{name}": value
        for part, (found, _) in zip(parts, alone, strict=True)
        for name, value in found.items()
    }
    summed = {
        name: sum(weight * found[name] for weight, (_, found) in zip(weights, alone, strict=True)) for name in gradients
    }
    assert_same((values, gradients), (expected, summed))


def test_a_joint_step_encodes_its_photos_once() -> None:
    parts = [made_batch(replace(work, images=3), 32, 4, 50, 7) for work in WORKS.values()]
    step, encoded = toy_pretraining(), []
    step.model.vision.register_forward_hook(lambda module, args, output: encoded.append(len(output)))
    step(joint_of(parts))
    assert encoded == [3]


def test_chunks_and_unique_texts_suit_the_momentum_teacher() -> None:
    batch = batch_with_equal_texts("captions")
    dear = Savings(unique_texts=False, chunked_words=False)
    assert_same(outcome(TAUGHT, batch), outcome(TAUGHT, batch, dear))


def test_equal_texts_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, encoded = batch_with_equal_texts("mrc"), []
    step = toy_pretraining()
    step.model.text.register_forward_hook(lambda module, args, output: encoded.append(len(output)))
    step(batch)
    assert encoded == [len(batch.text_ids) - int(batch.regions.offsets[1])]


def test_recomputing_keeps_less() -> None:
    from support.footprint import kept_bytes

    batch = made_batch(WORKS["captions"], 32, 4, 50, 7)
    steps = [toy_pretraining(config) for config in (VIT, replace(VIT, recompute=True))]
    kept, recomputed = (kept_bytes(lambda s=s: s(batch).total, s, torch.float32) for s in steps)
    assert recomputed < 0.5 * kept


def assert_same(found, expected) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-7, atol=1e-9, msg=name)
