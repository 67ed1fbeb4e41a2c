"""A step in chunks equals the step in one: values, gradients, teacher, given the negatives that chunks may draw."""

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.views import batch_of, chunks_of, made_views
from toys import LATE, TAUGHT, VIT, toy_pretraining

from relvlm.data.batches.batch import Batch
from relvlm.pretraining import step as module
from relvlm.pretraining.chunks import chunks_of as places
from relvlm.pretraining.chunks import random_numbers
from relvlm.pretraining.negatives import Negatives
from relvlm.pretraining.step import Pretraining

KINDS = ["captions", "entities", "mrc", "vsg", "joint"]


def neighbours(chunks: list[Batch]) -> Iterator[Negatives]:
    """Of each section of the whole step, then of each chunk: the next group of the chunk, round and round."""
    aligned = [place for place, section in enumerate(chunks[0].sections) if section.kind != "mrc"]
    sizes = [[chunk.sections[place].groups for place in aligned] for chunk in chunks]
    lengths = torch.tensor([[s.stop - s.start for s in row] for row in sizes]).reshape(len(chunks), -1)
    for column in lengths.T.tolist():
        starts = np.cumsum([0, *column[:-1]]).tolist()
        rows = [start + torch.arange(n) for start, n in zip(starts, column, strict=True)]
        yield Negatives.given(torch.cat([r.roll(-1) for r in rows]), torch.cat([r.roll(1) for r in rows]))
    for row in lengths.tolist():
        for n in row:
            yield Negatives.given(torch.arange(n).roll(-1), torch.arange(n).roll(1))


Found = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]  # values, gradients


def gradients(step: Pretraining) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in step.named_parameters() if p.grad is not None}


def in_one(step: Pretraining, batch: Batch) -> Found:
    total, values = step(batch)
    total.backward()
    return values, gradients(step)


def in_chunks(step: Pretraining, chunks: list[Batch]) -> Found:
    found = []
    for batch, chunk in zip(chunks, places(chunks), strict=True):
        total, values = step(batch, chunk)
        total.backward()
        found.append(values)
    return {name: sum(values[name] for values in found) for name in found[0]}, gradients(step)


def assert_same(found, expected) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-6, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("config", [VIT, LATE, TAUGHT], ids=["plain", "late vision", "momentum"])
def test_chunks_give_the_losses_and_gradients_of_the_whole_step(kind, count, config, monkeypatch):
    chunks, step = chunks_of(kind, count), toy_pretraining(config, dtype=torch.float64)
    given = neighbours(chunks)
    monkeypatch.setattr(module, "draw_negatives", lambda *_: next(given))
    other = copy.deepcopy(step)
    assert_same(in_one(step, batch_of(kind, made_views(kind)))[::-1], in_chunks(other, chunks)[::-1])
    assert next(given, None) is None
    if config is TAUGHT:
        assert other.teacher.seen == step.teacher.seen == (kind != "mrc")
        assert_same([dict(other.teacher.named_parameters())], [dict(step.teacher.named_parameters())])
        assert torch.equal(other.teacher.pointer, step.teacher.pointer)
        assert_same([dict(other.teacher.named_buffers())], [dict(step.teacher.named_buffers())])


@pytest.mark.parametrize("kind", ["captions", "entities"])
def test_both_passes_of_a_chunk_drop_the_same_features_and_patches(kind, monkeypatch):
    noisy = replace(
        VIT,
        text=replace(VIT.text, dropout=0.3),
        vision=replace(VIT.vision, dropout=0.3, patch_keep=0.5),
    )
    step, chunks, seen = toy_pretraining(noisy, dtype=torch.float64), chunks_of(kind, 3), []

    def remember(*args, original=module.encode):
        encoded = original(*args)
        seen.append(encoded.features)
        return encoded

    monkeypatch.setattr(module, "encode", remember)
    torch.manual_seed(5)
    in_chunks(step, chunks)
    for first, second in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(first.image_GE, second.image_GE) and torch.equal(first.text_GE, second.text_GE)
    step.chunk_targets(chunks[:1] * 2)  # nor do two chunks, or two steps, drop the same
    for first, second in ((seen[6], seen[7]), (seen[6], seen[0])):
        assert not torch.isclose(first.text_GE, second.text_GE).all()


def test_gradients_with_dropout_are_those_of_the_same_dropout():
    """ITC alone, for which the whole step can be written down with each chunk's random numbers."""
    noisy = replace(VIT, text=replace(VIT.text, dropout=0.3))
    step, chunks = toy_pretraining(noisy, dtype=torch.float64), chunks_of("captions", 2)
    model, targets = step.model, step.chunk_targets(chunks)
    features = []
    for chunk, target in zip(chunks, targets, strict=True):
        with random_numbers(target.seed):
            features.append(module.encode(model, chunk, "cross_attention").features)
    step.contrast(chunks, features, [None, None], model.temperature)["captions"].backward()
    expected = gradients(step)
    step.zero_grad()
    for chunk, target in zip(chunks, targets, strict=True):
        with random_numbers(target.seed):
            encoded = module.encode(model, chunk, "cross_attention")
        target.itc.surrogate(encoded.features, model.temperature).backward()
    assert_same([gradients(step)], [expected])


def test_negatives_come_from_the_chunk(monkeypatch):
    step, chunks, drawn = toy_pretraining(VIT, dtype=torch.float64), chunks_of("captions", 2), []
    monkeypatch.setattr(
        module,
        "draw_negatives",
        lambda *args, draw=module.draw_negatives: drawn.append(draw(*args)) or drawn[-1],
    )
    in_chunks(step, chunks)
    assert [len(negatives.view_of_text) for negatives in drawn] == [chunk.images for chunk in chunks]


def test_other_random_numbers_go_on_as_if_there_were_no_chunks():
    step, chunks = toy_pretraining(replace(VIT, text=replace(VIT.text, dropout=0.3))), chunks_of("mrc", 2)
    torch.manual_seed(3)
    torch.randint(2**62, (2,))
    expected = torch.rand(2)
    torch.manual_seed(3)
    in_chunks(step, chunks)
    assert torch.equal(torch.rand(2), expected)
