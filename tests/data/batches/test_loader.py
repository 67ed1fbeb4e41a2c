"""Batches are a function of the seed and the step, whatever ranks, workers, chunks and restarts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.scenes import COUNT, first, load, loader_of, only, same, scene, steps, write

from relvlm.config.cache import CacheConfig
from relvlm.config.schema import (
    DatasetConfig,
    KindCounts,
    KindRatios,
    LowResolutionConfig,
    NegativePools,
)
from relvlm.data.text import Tokenizer
from relvlm.errors import UserError


def test_run_is_the_same_for_any_number_of_workers(config):
    augmented = replace(config, crop_scale=0.5, flip=0.5, randaugment=True)
    alone = load(augmented, 12)
    assert {b.kind for b in alone} == {"captions", "entities", "mrc", "vsg"}
    workers = load(replace(augmented, workers=2), 12)
    assert all(same(a, b) for a, b in zip(alone, workers, strict=True))


@pytest.mark.parametrize("address", ["file://{}/scenes", "pipe:cat {}/scenes/{{}}"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_at_an_address_gives_what_it_gives_in_a_folder(config, folder, tmp_path, caplog, address, workers):
    pytest.importorskip("fsspec")
    caplog.set_level("INFO")
    afar = [DatasetConfig(address.format(folder))]
    cache = CacheConfig(str(tmp_path / "cache"))
    sets = {"captions": afar, "entities": afar, "graphs": [replace(afar[0], block=2)]}
    remote = load(replace(config, **sets, cache=cache, workers=workers), 12)
    assert all(same(a, b) for a, b in zip(load(config, 12), remote, strict=True))
    assert "whole shards come into" in caplog.text and "exactly those of a folder" in caplog.text


def test_resume_continues_the_same_run(config):
    augmented = replace(config, crop_scale=0.5, flip=0.5, randaugment=True)
    run = load(augmented, 12)
    assert all(same(a, b) for a, b in zip(run[7:], load(augmented, 5, start_step=7), strict=True))
    assert not same(run[0], load(augmented, 1, seed=1)[0])


def test_the_first_steps_are_of_smaller_images_and_grids(config):
    low = LowResolutionConfig(steps=7, image_size=16)
    run, full = load(config, 10, low_resolution=low), load(config, 10)
    assert {b.kind for b in run[:7]} == {"captions", "entities", "mrc", "vsg"}
    for small, large in zip(run[:7], full, strict=False):
        assert small.pixels.shape == (large.images, 3, 16, 16)
        assert torch.equal(small.text_ids, large.text_ids)
        box = small.regions.box
        assert box.min() == 0 and box.max() == 2 and (box[:, 2:] > box[:, :2]).all()
        assert small.regions.grid == (2, 2) and large.regions.grid == (4, 4)
        torch.testing.assert_close(small.target_box, large.target_box)
    assert all(same(a, b) for a, b in zip(run[7:], full[7:], strict=True))


@pytest.mark.parametrize("start", [4, 7])
def test_resume_in_and_after_the_low_resolution_phase(config, start):
    low = LowResolutionConfig(steps=7, image_size=16)
    run = load(config, 10, low_resolution=low)
    resumed = load(replace(config, workers=2), 10 - start, low_resolution=low, start_step=start)
    assert all(same(a, b) for a, b in zip(run[start:], resumed, strict=True))


def test_at_an_offset_the_samples_are_of_later_steps_and_the_sizes_of_these(config):
    low = LowResolutionConfig(steps=7, image_size=16)
    run, small = load(config, 12), load(config, 12, low_resolution=LowResolutionConfig(steps=12, image_size=16))
    moved = load(replace(config, workers=1), 4, low_resolution=low, start_step=5, data_offset=3)
    assert all(same(a, b) for a, b in zip([*small[8:10], *run[10:12]], moved, strict=True))


def test_ranks_share_the_batch_of_one(config):
    whole = first(config, "captions")
    shares = [first(config, "captions", rank=r, world_size=2) for r in range(2)]
    assert [s.images for s in shares] == [4, 4]
    assert torch.equal(torch.cat([s.image_key for s in shares]), whole.image_key)
    assert torch.equal(shares[1].pixels, whole.pixels[4:])


@pytest.mark.parametrize("kind", ["captions", "entities", "vsg", "joint"])
@pytest.mark.parametrize(("ranks", "chunks"), [(2, 1), (4, 1), (1, 2), (2, 2)])
def test_pools_and_draws_are_the_same_for_any_number_of_ranks_and_chunks(config, kind, ranks, chunks):
    """Of each section, one rank after another and its chunks in their order."""
    pools = NegativePools(captions=2, entities=1, vsg=2, joint=2)
    joint = replace(config, joint=config.graphs, ratio=KindRatios(joint=1.0))
    config = replace(joint if kind == "joint" else only(config, kind), negative_pool=pools)
    config = replace(config, batch=KindCounts(captions=8, entities=8, vsg=8, joint=8))
    whole = load(config, 2)
    dealt = [steps(config, 2, rank=rank, world_size=ranks, accumulate=chunks) for rank in range(ranks)]
    for number, batch in enumerate(whole):
        parts = [chunk for of_rank in dealt for chunk in of_rank[number]]
        assert len(parts) == ranks * chunks
        for place, section in enumerate(s for s in batch.sections if s.aligned):
            for name in ("pool", "draws", "text_key"):
                joined = torch.cat([getattr(part, name)[part.sections[place].groups] for part in parts])
                assert torch.equal(joined, getattr(batch, name)[section.groups]), name
        in_pools = [set(part.pool.tolist()) for part in parts]
        assert sum(map(len, in_pools)) == len(set.union(*in_pools)) == 4
    assert not torch.equal(whole[0].draws[:4], whole[1].draws[:4])


def test_other_seeds_and_sections_draw_other_numbers(config):
    joint = replace(config, joint=config.graphs, ratio=KindRatios(joint=1.0), batch=KindCounts(joint=4))
    one, other = load(joint, 1)[0], load(joint, 1, seed=1)[0]
    captions, _, vsg, mrc = one.sections
    assert not torch.isclose(one.draws, other.draws).any()
    assert not torch.isclose(one.draws[captions.groups], one.draws[vsg.groups]).any()
    assert len(one.draws) == mrc.groups.start and one.draws.dtype == torch.float32


def test_mrc_batches_draw_nothing(config):
    assert first(config, "mrc").draws.shape == (0, 2)


def test_the_hash_of_a_steps_samples_does_not_depend_on_who_reads_them(config):
    whole = [batch.samples_hash for batch in load(config, 12)]
    assert len(set(whole)) == 12 and all(0 < value < 2**64 for value in whole)
    shares = [load(config, 12, rank=r, world_size=2) for r in range(2)]
    assert [sum(batch.samples_hash for batch in step) % 2**64 for step in zip(*shares, strict=True)] == whole
    chunked = steps(replace(config, graphs=[replace(config.graphs[0], block=1)]), 12, accumulate=2)
    alone = load(replace(config, graphs=[replace(config.graphs[0], block=1)]), 12)
    assert [sum(chunk.samples_hash for chunk in step) % 2**64 for step in chunked] == [b.samples_hash for b in alone]
    assert whole[0] != load(config, 1, seed=1)[0].samples_hash


@pytest.mark.parametrize("chunks", [2, 3])
def test_the_chunks_of_a_step_hold_its_samples_in_order(config, chunks):
    augmented = replace(config, crop_scale=0.5, flip=0.5, randaugment=True)
    graphs = [replace(config.graphs[0], block=1)]
    augmented = replace(augmented, graphs=graphs, negative_pool=NegativePools(1, 1, 1, 1))
    whole, parts = load(augmented, 12), steps(augmented, 12, accumulate=chunks)
    assert {batch.kind for batch in whole} == {"captions", "entities", "mrc", "vsg"}
    for batch, step in zip(whole, parts, strict=True):
        sizes = [chunk.images for chunk in step]
        assert len(step) == chunks and max(sizes) - min(sizes) <= 1
        boxes = torch.cat([chunk.regions.box for chunk in step])
        assert torch.equal(boxes, batch.regions.box)
        for name in ("pixels", "image_key", "text_ids", "text_key", "mlm_label", "relation"):
            joined = torch.cat([getattr(chunk, name) for chunk in step])
            assert torch.equal(joined, getattr(batch, name)), name
        assert {(chunk.kind, chunk.dataset) for chunk in step} == {(batch.kind, batch.dataset)}


def test_a_block_is_in_one_chunk(config):
    graphs = only(replace(config, batch=KindCounts(mrc=10)), "mrc")
    for step in steps(graphs, 3, accumulate=3):
        assert [chunk.images for chunk in step] == [2, 4, 4]


def test_chunks_do_not_depend_on_workers_or_resume(config):
    run = steps(config, 6, accumulate=2)
    for other in (
        steps(replace(config, workers=2), 6, accumulate=2)[4:],
        steps(config, 2, start_step=4, accumulate=2),
    ):
        for one, two in zip(run[4:], other, strict=True):
            assert all(same(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("kind", "most"),
    [("captions", 2), ("entities", 2), ("mrc", 1), ("vsg", 1)],  # entities: 2 regions an image; mrc: in pairs
)
def test_more_chunks_than_a_rank_has_pools_are_refused(config, kind, most):
    steps(only(config, kind), 1, world_size=2, accumulate=most)
    unit = "blocks" if kind == "mrc" else "pools"
    with pytest.raises(UserError, match=f"accumulate: {most + 1} chunks .* {unit} of one {kind} .* at most {most}, "):
        steps(only(config, kind), 1, world_size=2, accumulate=most + 1)


def test_epochs_augment_differently(config):
    small = replace(only(config, "captions"), batch=KindCounts(captions=COUNT), crop_scale=0.2)
    one, two = load(small, 2)
    assert sorted(one.image_key.tolist()) == sorted(two.image_key.tolist())
    order = one.image_key.argsort(), two.image_key.argsort()
    assert not torch.equal(one.pixels[order[0]], two.pixels[order[1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"captions": [DatasetConfig("absent")]}, r"data.captions\[0\].path: absent: no manifest.json"),
        ({"vocab": "absent.txt"}, "absent.txt: data.vocab: no such file"),
        ({"relations": "absent.txt"}, "absent.txt: data.relations: no such file"),
        ({"regions_per_image": 3}, "data.batch.entities: 8 regions are no multiple"),
        ({"batch": KindCounts(7, 8, 4, 4)}, "data.negative_pool.captions: 7 images .* cannot be dealt to 2 ranks"),
    ],
)
def test_bad_settings_are_refused_before_any_work(config, change, message):
    with pytest.raises(UserError, match=message):
        loader_of(replace(config, **change), world_size=2)


def test_datasets_are_drawn_by_weight(config, folder):
    other = write(folder, "other", map(scene, range(COUNT)))
    both = replace(only(config, "captions"), captions=[replace(other, weight=3.0), *config.captions])
    drawn = [batch.dataset for batch in load(both, 120)]
    assert np.mean([name == "other" for name in drawn]) == pytest.approx(0.75, abs=0.12)


def test_loader_leaves_the_models_random_numbers_alone(config):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(config, 2)
    assert torch.equal(torch.rand(3), expected)


def test_masked_tokens_are_words(config):
    tokenizer = Tokenizer(config.vocab)
    batch = first(config, "captions")
    assert not tokenizer.special_ids & set(batch.mlm_label.tolist())
    assert torch.equal(batch.text_ids[batch.mlm_row], batch.mlm_label)
