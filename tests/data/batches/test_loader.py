import io
import logging
from dataclasses import fields, replace
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from relvlm.config.schema import (
    DataConfig,
    DatasetConfig,
    JointWeights,
    KindCounts,
    KindRatios,
    LowResolutionConfig,
)
from relvlm.data.batches.loader import build_loader
from relvlm.data.batches.transforms import eval_transform
from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.data.shards.store import write_shards
from relvlm.data.text import Tokenizer, text_key
from relvlm.errors import UserError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "cube", "ball", "red", "blue", "left", "right", "of", "picture", "number"]
DIGITS = [str(i) for i in range(10)] + [f"##{i}" for i in range(10)]
COUNT = 24
RED, BLUE = (255, 0, 0), (0, 0, 255)


def scene(number: int) -> tuple[str, bytes, Sample]:
    """A red cube left of a blue ball; the caption holds the number."""
    image = Image.new("RGB", (64, 48), (number, number, number))
    image.paste(RED, (4, 4, 20, 20))
    image.paste(BLUE, (40, 20, 60, 40))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    sample = Sample(
        image_id=str(number),
        width=64,
        height=48,
        source="scenes",
        captions=(f"picture number {number}",),
        entities=(
            Entity("c", "cube", (4, 4, 20, 20), ("red",)),
            Entity("b", "ball", (40, 20, 60, 40), ("blue",)),
        ),
        relations=(Relation("c", "left of", "b"), Relation("b", "right of", "c"), Relation("c", "near", "b")),
    )
    return f"{number:04d}", buffer.getvalue(), sample


def write(folder, name, records):
    write_shards(folder / name, records, source="scenes", builder_args={}, shard_size=10)
    return DatasetConfig(str(folder / name))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loader")
    (folder / "vocab.txt").write_text("\n".join(WORDS + DIGITS))
    (folder / "relations.txt").write_text("left of\nright of\n")
    write(folder, "scenes", map(scene, range(COUNT)))
    return folder


@pytest.fixture
def config(folder):
    scenes = [DatasetConfig(str(folder / "scenes"))]
    return DataConfig(
        vocab=str(folder / "vocab.txt"),
        relations=str(folder / "relations.txt"),
        captions=scenes,
        entities=scenes,
        graphs=[replace(scenes[0], block=2)],
        batch=KindCounts(captions=8, entities=8, mrc=4, vsg=4),
        ratio=KindRatios(captions=2, entities=1.5, mrc=1, vsg=1),
        regions_per_image=2,
    )


def only(config, kind):
    if kind == "joint":
        return config
    return replace(config, ratio=KindRatios(**{kind: 1.0}))


def steps(config, count, **kwargs):
    return list(islice(build_loader(config, image_size=32, patch_size=8, **{"seed": 0, **kwargs}), count))


def load(config, count, **kwargs):
    return [batch for (batch,) in steps(config, count, **kwargs)]


def first(config, kind, **kwargs):
    return load(only(config, kind), 1, **kwargs)[0]


def same(a, b):
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.name not in ("distinct", "regions")]
    pairs += zip(a.distinct, b.distinct, strict=True)
    pairs += [(getattr(a.regions, f.name), getattr(b.regions, f.name)) for f in fields(a.regions)]
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


def texts(batch):
    vocab = WORDS + DIGITS
    cu = batch.regions.offsets.tolist()
    return [" ".join(vocab[i] for i in batch.text_ids[a:b]).replace(" ##", "") for a, b in pairwise(cu)]


def test_caption_batch(config):
    batch = first(config, "captions")
    assert (batch.kind, batch.dataset, batch.images) == ("captions", "scenes", 8)
    assert batch.pixels.shape == (8, 3, 32, 32)
    assert batch.whole.all()
    assert batch.regions.box.tolist() == [[0, 0, 4, 4]] * 8
    assert batch.regions.image.tolist() == list(range(8))
    assert len(batch.mlm_row) >= 8
    assert len(batch.subject) == 0


def test_caption_is_that_of_its_image(config):
    batch = first(config, "captions")
    for row, text in enumerate(texts(batch)):
        number = int(text.split()[3])
        assert text == f"[CLS] picture number {number} [SEP]"
        assert batch.image_key[row] == text_key(f"scenes/{number}")
        expected = eval_transform(32)(Image.open(io.BytesIO(scene(number)[1])))
        torch.testing.assert_close(batch.pixels[row], expected)


def test_entity_batch_has_regions_and_the_whole_image(config):
    batch = first(config, "entities")
    assert batch.images == 4  # 8 regions, 2 an image
    assert len(batch.whole) == 12
    for text, box, target, whole in zip(
        texts(batch), batch.regions.box.tolist(), batch.target_box.tolist(), batch.whole.tolist(), strict=True
    ):
        if whole:
            assert text.startswith("[CLS] picture number")
        else:
            shape = text.removeprefix("[CLS] ").removesuffix(" [SEP]")
            assert box == {"red cube": [0, 0, 2, 2], "blue ball": [2, 1, 4, 4]}[shape]
            centre = {"red cube": (12 / 64, 12 / 48), "blue ball": (50 / 64, 30 / 48)}[shape]
            assert target[:2] == pytest.approx(centre)


def test_mrc_batch_has_one_group_for_each_entity(config):
    batch = first(config, "mrc")
    assert batch.images == 4
    assert len(batch.whole) == 8 and not batch.whole.any()
    assert len(batch.mlm_row) == 0
    assert len(batch.mlm_ids) == 0
    words = texts(batch)
    assert len(batch.relation) == 8
    for subject, target, relation in zip(batch.subject, batch.object, batch.relation, strict=True):
        pair = words[subject], words[target]
        cube, ball = "[CLS] cube [SEP]", "[CLS] ball [SEP]"
        assert pair == ((cube, ball) if relation == 0 else (ball, cube))
        assert batch.regions.image[subject] == batch.regions.image[target]


def test_mrc_counts_predicates_outside_the_vocabulary(config):
    loader = build_loader(only(config, "mrc"), image_size=32, patch_size=8, seed=0)
    next(loader)
    assert loader.counts()["unknown_predicates"] == 4


def test_vsg_batch_verbalises_the_graph(config):
    batch = first(replace(config, vsg_triplets=3), "vsg")
    assert batch.images == len(batch.whole) == 4 and batch.whole.all()
    for text in texts(batch):
        triplets = text.removeprefix("[CLS] ").removesuffix(" [SEP]").split(" [SEP] ")
        assert len(triplets) == 3
        assert triplets[2] == "blue ball right of red cube"
        assert set(triplets[:2]) == {"red cube left of blue ball", "red cube [UNK] blue ball"}


def joint(config, **weights):
    weights = dict.fromkeys(("captions", "entities", "mrc", "vsg"), 0.0) | weights
    return replace(
        config,
        joint=config.graphs,
        joint_weights=JointWeights(**weights),
        batch=replace(config.batch, joint=4),
        ratio=KindRatios(joint=1.0),
    )


def test_joint_batch_says_of_each_photo_all_that_is_known(config):
    batch = first(joint(config, captions=1, entities=1, mrc=2, vsg=0.5), "joint")
    assert (batch.kind, batch.images) == ("joint", 4)
    assert [(s.kind, s.weight) for s in batch.sections] == [
        ("captions", 1), ("entities", 1), ("vsg", 0.5), ("mrc", 2)
    ]  # fmt: skip
    said = {s.kind: texts(batch)[s.groups] for s in batch.sections}
    photos = {s.kind: batch.regions.image[s.groups].tolist() for s in batch.sections}
    assert photos == {
        "captions": [0, 1, 2, 3],
        "entities": [i for i in range(4) for _ in range(3)],
        "vsg": [0, 1, 2, 3],
        "mrc": [i for i in range(4) for _ in range(2)],
    }
    assert set(said["mrc"]) == {"[CLS] cube [SEP]", "[CLS] ball [SEP]"}
    assert all("picture number" in text for text in said["captions"])
    for subject, target in zip(batch.subject, batch.object, strict=True):
        assert batch.regions.image[subject] == batch.regions.image[target]
        assert batch.sections[3].groups.start <= min(subject, target)


def test_joint_photos_are_whole_and_a_kind_without_weight_is_left_out(config):
    cropped = replace(config, crop_scale=0.2)
    batch = first(joint(cropped, captions=1, vsg=1), "joint")
    assert {s.kind for s in batch.sections} == {"captions", "vsg"}
    assert torch.equal(batch.pixels, first(joint(config, captions=1, vsg=1), "joint").pixels)


def test_a_joint_batch_passes_over_samples_that_lack_a_kind(config, folder, tmp_path):
    bare = replace(scene(30)[2], relations=())
    scenes = [(key, image, bare if i % 2 else sample) for i, (key, image, sample) in enumerate(map(scene, range(8)))]
    mixed = replace(config, graphs=[write(tmp_path, "mixed", scenes)])
    loader = build_loader(joint(mixed, captions=1, vsg=1), image_size=32, patch_size=8, seed=0)
    (batch,) = next(loader)
    assert all(len(batch.whole[s.groups]) == 4 for s in batch.sections)
    assert loader.counts()["unusable"] > 0


@pytest.mark.parametrize("kind", ["captions", "entities", "mrc", "vsg"])
def test_siblings_of_a_block_share_a_batch(config, kind):
    batch = first(config, kind)
    keys = {text_key(f"scenes/{i}"): i for i in range(COUNT)}
    numbers = [keys[k] for k in batch.image_key.tolist()]
    paired = all(a + 1 == b for a, b in zip(numbers[::2], numbers[1::2], strict=True))
    assert paired == (kind in ("mrc", "vsg"))


@pytest.mark.parametrize("kind", ["entities", "mrc"])
def test_flip_mirrors_pixels_boxes_and_words(config, kind):
    plain, flipped = first(config, kind), first(replace(config, flip=1.0), kind)
    assert torch.equal(plain.image_key, flipped.image_key)
    torch.testing.assert_close(plain.pixels, flipped.pixels.flip(-1))
    regions = {
        t: b for t, b, w in zip(texts(flipped), flipped.regions.box.tolist(), flipped.whole, strict=True) if not w
    }
    ball = regions["[CLS] blue ball [SEP]" if kind == "entities" else "[CLS] ball [SEP]"]
    assert ball == [0, 1, 2, 4]
    if kind == "mrc":
        words = texts(flipped)
        for subject, relation in zip(flipped.subject, flipped.relation, strict=True):
            assert words[subject] == ("[CLS] ball [SEP]" if relation == 0 else "[CLS] cube [SEP]")


def test_flip_swaps_the_words_of_a_scene_graph(config):
    batch = first(replace(config, flip=1.0, vsg_triplets=3), "vsg")
    assert all(t.startswith("[CLS] blue ball left of red cube [SEP] red cube") for t in texts(batch))


def test_crop_keeps_an_entity_whole(config):
    cropped = replace(only(config, "entities"), crop_scale=0.2, randaugment=True)
    for batch in load(cropped, 10):
        regions = torch.bincount(batch.regions.image[~batch.whole], minlength=batch.images)
        assert regions.min() >= 1
        assert regions.max() <= 2
        half = batch.target_box[:, 2:] / 2
        assert (batch.target_box[:, :2] - half >= -1e-6).all()
        assert (batch.target_box[:, :2] + half <= 1 + 1e-6).all()


def test_cropped_and_flipped_boxes_hold_their_entity(config):
    augmented = replace(only(config, "entities"), crop_scale=0.2, flip=0.5)
    seen = 0
    for batch in load(augmented, 10):
        rows = zip(texts(batch), batch.target_box, batch.regions.image, batch.whole, strict=True)
        for text, target, image, whole in rows:
            if not whole:
                x, y = (target[:2] * 32).int().tolist()
                colour = batch.pixels[image, :, y, x]
                assert text.split()[1] == ("red" if colour[0] > colour[2] else "blue")
                seen += 1
    assert seen > 40


@pytest.mark.parametrize("change", [{"crop_scale": 0.2}, {"randaugment": True}])
@pytest.mark.parametrize("kind", ["captions", "entities"])
def test_augmentation_changes_the_pixels(config, kind, change):
    plain, augmented = first(config, kind), first(replace(config, **change), kind)
    assert torch.equal(plain.image_key, augmented.image_key)
    assert not torch.equal(plain.pixels, augmented.pixels)


def test_relation_images_are_never_cropped(config):
    for kind in ("mrc", "vsg"):
        assert torch.equal(first(config, kind).pixels, first(replace(config, crop_scale=0.2), kind).pixels)


def test_run_is_the_same_for_any_number_of_workers(config):
    augmented = replace(config, crop_scale=0.5, flip=0.5, randaugment=True)
    alone = load(augmented, 12)
    assert {b.kind for b in alone} == {"captions", "entities", "mrc", "vsg"}
    workers = load(replace(augmented, workers=2), 12)
    assert all(same(a, b) for a, b in zip(alone, workers, strict=True))


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


def test_ranks_share_the_batch_of_one(config):
    whole = first(config, "captions")
    shares = [first(config, "captions", rank=r, world_size=2) for r in range(2)]
    assert [s.images for s in shares] == [4, 4]
    assert torch.equal(torch.stack([s.image_key for s in shares], 1).reshape(-1), whole.image_key)
    assert torch.equal(shares[1].pixels, whole.pixels[1::2])


@pytest.mark.parametrize("chunks", [2, 3])
def test_the_chunks_of_a_step_hold_its_samples_in_order(config, chunks):
    augmented = replace(config, crop_scale=0.5, flip=0.5, randaugment=True)
    graphs = [replace(config.graphs[0], block=1)]
    augmented = replace(augmented, graphs=graphs)
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
    graphs = only(replace(config, batch=KindCounts(vsg=10)), "vsg")
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
    [("captions", 4), ("entities", 2), ("vsg", 1)],  # entities: 2 regions an image; vsg: in pairs
)
def test_more_chunks_than_a_rank_has_images_are_refused(config, kind, most):
    steps(only(config, kind), 1, world_size=2, accumulate=most)
    with pytest.raises(UserError, match=f"accumulate: {most + 1} chunks are more than the {most} images .* {kind} b"):
        steps(only(config, kind), 1, world_size=2, accumulate=most + 1)


def test_epochs_augment_differently(config):
    small = replace(only(config, "captions"), batch=KindCounts(captions=COUNT), crop_scale=0.2)
    one, two = load(small, 2)
    assert sorted(one.image_key.tolist()) == sorted(two.image_key.tolist())
    order = one.image_key.argsort(), two.image_key.argsort()
    assert not torch.equal(one.pixels[order[0]], two.pixels[order[1]])


def damaged(number):
    key, image, sample = scene(number)
    if number in (3, 11):
        image = image[: len(image) // 2]
    if number == 7:
        sample = replace(sample, captions=())
    return key, image, sample


@pytest.fixture
def faulty(config, tmp_path):
    dataset = write(tmp_path, "damaged", map(damaged, range(COUNT)))
    captions = replace(config, captions=[dataset], ratio=KindRatios(captions=1))
    return replace(captions, batch=KindCounts(captions=COUNT))


@pytest.mark.parametrize("workers", [0, 2])
def test_faulty_samples_are_replaced_and_counted(faulty, workers, caplog):
    loader = build_loader(replace(faulty, workers=workers), image_size=32, patch_size=8, seed=0)
    with caplog.at_level(logging.WARNING):
        (batch,) = next(loader)
    bad = [text_key(f"scenes/{i}") for i in (3, 7, 11)]
    assert batch.images == COUNT
    assert not set(bad) & set(batch.image_key.tolist())
    assert loader.counts()["faults"] >= 2
    assert loader.counts()["unusable"] >= 1
    if workers == 0:  # workers write to their own log
        assert "000000.tar: 0003: corrupt image" in caplog.text
        assert "000001.tar: 0011: corrupt image" in caplog.text
        assert "0007" not in caplog.text  # merely of no use for captions


def test_replacement_does_not_depend_on_workers_or_resume(faulty):
    run = load(faulty, 3)
    assert same(run[2], load(faulty, 1, start_step=2)[0])
    assert same(run[2], load(replace(faulty, workers=1), 3)[2])


def test_a_fault_is_logged_and_counted_once(faulty, caplog):
    loader = build_loader(faulty, image_size=32, patch_size=8, seed=0)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            next(loader)
    assert loader.counts()["faults"] == len(caplog.records) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_faults_end_the_run(faulty, workers):
    config = replace(faulty, max_faults=1, workers=workers)
    with pytest.raises(UserError, match=r"^\S+damaged: 2 faulty samples, data.max_faults is 1; the last: 00000"):
        load(config, 1)


def test_a_dataset_of_no_use_for_its_kind_ends_the_run(config, tmp_path):
    def bare(number):
        key, image, sample = scene(number)
        return key, image, replace(sample, captions=())

    dataset = write(tmp_path, "bare", map(bare, range(COUNT)))
    captions = replace(only(config, "captions"), captions=[dataset])
    with pytest.raises(UserError, match="no use for captions batches; the last: no caption"):
        load(captions, 1)


def test_annotation_of_another_size_is_a_fault(config, tmp_path):
    def shrunk(number):
        key, image, sample = scene(number)
        return key, image, replace(sample, width=640, height=480) if number == 0 else sample

    dataset = write(tmp_path, "sizes", map(shrunk, range(COUNT)))
    sizes = replace(only(config, "captions"), captions=[dataset], batch=KindCounts(captions=COUNT))
    with pytest.raises(UserError, match="0000: image is 64x48, annotation 640x480"):
        load(replace(sizes, max_faults=0), 1)


def test_long_captions_are_cut_and_counted(config):
    short = replace(only(config, "captions"), max_text_tokens=4)
    loader = build_loader(short, image_size=32, patch_size=8, seed=0)
    (batch,) = next(loader)
    assert all(len(t.split()) <= 4 for t in texts(batch))
    assert loader.counts()["truncated_texts"] == 8
    wordy = build_loader(replace(only(config, "captions"), max_words=2), image_size=32, patch_size=8, seed=0)
    assert set(texts(*next(wordy))) == {"[CLS] picture number [SEP]"}
    assert wordy.counts()["cut_captions"] == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"captions": [DatasetConfig("absent")]}, r"data.captions\[0\].path: absent: no manifest.json"),
        ({"vocab": "absent.txt"}, "absent.txt: data.vocab: no such file"),
        ({"relations": "absent.txt"}, "absent.txt: data.relations: no such file"),
        ({"regions_per_image": 3}, "data.batch.entities: 8 regions are no multiple"),
        ({"batch": KindCounts(7, 8, 4, 4)}, "data.batch.captions: 7 images cannot be dealt to 2 ranks"),
    ],
)
def test_bad_settings_are_refused_before_any_work(config, change, message):
    with pytest.raises(UserError, match=message):
        build_loader(replace(config, **change), image_size=32, patch_size=8, seed=0, world_size=2)


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
