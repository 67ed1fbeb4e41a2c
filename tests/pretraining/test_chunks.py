"""A step in chunks equals the step in one: values, gradients, teacher, given the negatives that chunks may draw."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from toys import LATE, TAUGHT, VIT, toy_pretraining

from relvlm.data.batches.batch import Batch, Group, View, assemble
from relvlm.data.batches.regions import Region, whole_region
from relvlm.pretraining import step as module
from relvlm.pretraining.chunks import chunks_of as places
from relvlm.pretraining.chunks import random_numbers, shares_of_chunks
from relvlm.pretraining.negatives import Negatives
from relvlm.pretraining.step import Pretraining

KINDS = ["captions", "entities", "mrc", "vsg", "joint"]
WEIGHTS = {"captions": 0.5, "entities": 1.0, "vsg": 2.0, "mrc": 1.0}
IMAGES = 7


def made_views(kind: str, images: int = IMAGES) -> list[View]:
    """Of unequal numbers of groups, words, masks and triplets; some texts are in several of them."""
    rng = np.random.default_rng(0)

    def group(region: Region, masks: int) -> Group:
        key = int(rng.integers(40))
        ids = [2, *np.random.default_rng(key).integers(5, 50, 2 + key % 4).tolist()]
        places = list(range(1, 1 + masks))
        masked = [4 if place in places else word for place, word in enumerate(ids)]
        return Group(ids, key, region, masked, places, [ids[place] for place in places])

    def part() -> Region:
        x, y = rng.integers(0, 3, 2).tolist()
        return Region((x, y, x + 2, y + 1), (0.3 + 0.1 * x, 0.3 + 0.1 * y, 0.5, 0.25))

    whole = whole_region(32, 8)
    views = []
    for image in range(images):
        groups = {
            "captions": [group(whole, 1 + image % 2)],
            "entities": [*(group(part(), 1) for _ in range(1 + image % 3)), group(whole, 2)],
            "vsg": [group(whole, 1)],
            "mrc": [group(part(), 0) for _ in range(2 + image % 2)],
        }
        triplets = [(0, 1, image % 7), (1, 0, 3)][: 1 + image % 2]
        pixels = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
        own = groups if kind == "joint" else {kind: groups[kind]}
        views.append(View(pixels, image, own, triplets if kind in ("mrc", "joint") else []))
    return views


def batch_of(kind: str, views: list[View]) -> Batch:
    return assemble(kind, "made", views, (4, 4), WEIGHTS if kind == "joint" else None)


def chunks_of(kind: str, count: int, views: list[View] | None = None) -> list[Batch]:
    views = made_views(kind) if views is None else views
    edges = [len(views) * i // count for i in range(count + 1)]
    return [batch_of(kind, views[a:b]) for a, b in pairwise(edges)]


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
        if kind != "joint":  # whose pairs come chunk by chunk, not section by section
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


def test_each_objective_is_shared_by_what_it_counts():
    chunks = chunks_of("entities", 2)
    first, second = shares_of_chunks(chunks, "masked")
    for name, counts in {
        "mlm": [len(chunk.mlm_row) for chunk in chunks],
        "bbox": [len(chunk.region) for chunk in chunks],
        "itm": [3 * chunk.groups for chunk in chunks],
    }.items():
        shares = first[f"entities/{name}"], second[f"entities/{name}"]
        assert shares == pytest.approx([n / sum(counts) for n in counts])


def test_of_nothing_each_chunk_has_nothing_and_all_of_a_single_thing():
    """Chunks of entities of which one box is left in all, and then none."""
    first, second = chunks_of("entities", 2)
    without = replace(second, region=second.region[:0])
    shares = [
        of["entities/bbox"] for of in shares_of_chunks([replace(first, region=first.region[:1]), without], "masked")
    ]
    assert shares == [1.0, 0.0]
    assert [of["entities/bbox"] for of in shares_of_chunks([without, without], "masked")] == [0.0, 0.0]
    assert shares_of_chunks([first], "masked")[0]["entities/mlm"] == 1.0


def test_a_pair_without_a_negative_has_no_share():
    """Of three images in two chunks, the first is alone in its own: one pair is counted there, and six."""
    chunks = chunks_of("captions", 2, made_views("captions", 3))
    shares = [of_chunk["captions/itm"] for of_chunk in shares_of_chunks(chunks, "masked")]
    assert shares == pytest.approx([1 / 7, 6 / 7])


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
