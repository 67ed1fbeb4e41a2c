"""What a batch of each kind holds of its photos: regions, texts, flips, crops."""

import io
from dataclasses import replace
from random import Random

import pytest
import torch
from PIL import Image
from support.scenes import COUNT, first, left_out, load, only, scene, steps, texts, write

from relvlm.config.schema import (
    JointWeights,
    KindRatios,
)
from relvlm.data.batches.transforms import eval_transform
from relvlm.data.batches.views import Unusable, ViewBuilder
from relvlm.data.shards.schema import Relation
from relvlm.data.shards.store import Record
from relvlm.data.text import Tokenizer, text_key


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
        torch.testing.assert_close(batch.to("cpu").pixels[row], expected, atol=0.016, rtol=0)  # one of 255 greys


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
    assert left_out(steps(only(config, "mrc"), 1))["unknown_predicates"] == 4


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
    (batch,) = load(joint(mixed, captions=1, vsg=1), 1)
    assert all(len(batch.whole[s.groups]) == 4 for s in batch.sections)
    assert set(batch.image_key.tolist()) == {text_key(f"scenes/{i}") for i in (0, 2, 4, 6)}


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


def unusable(config, made, kind):
    views = ViewBuilder(config, 32, 8, Tokenizer(config.vocab_file), {"left of": 0})
    with pytest.raises(Unusable) as caught:
        views.view(kind, made, Random(0))
    return str(caught.value)


def test_a_graph_without_a_text_says_why(config):
    record = Record(scene(0)[0], "0.tar", *scene(0)[1:])
    bare = replace(record, sample=replace(record.sample, relations=()))
    assert unusable(config, bare, "vsg") == "no relation"
    assert unusable(replace(config, max_vsg_tokens=3), record, "vsg") == "no triplet fits data.max_vsg_tokens"


@pytest.mark.parametrize(("words", "cut"), [(4, 0), (3, 1)])
def test_a_caption_is_cut_when_it_has_more_words_than_allowed(config, words, cut):
    views = ViewBuilder(replace(config, max_words=words), 32, 8, Tokenizer(config.vocab_file), {})
    record = Record(scene(0)[0], "0.tar", *scene(0)[1:])
    views.view("captions", replace(record, sample=replace(record.sample, captions=("a b c d",))), Random(0))
    assert views.counts["cut_captions"] == cut


def test_a_thing_without_words_is_in_no_text_of_a_graph(config):
    key, photo, sample = scene(0)
    nameless = replace(sample.entities[0], id="nameless", label="?")
    relations = (*sample.relations, *[Relation("nameless", "near", e.id) for e in sample.entities])
    made = Record(key, "0.tar", photo, replace(sample, entities=(*sample.entities, nameless), relations=relations))
    views = ViewBuilder(replace(config, vsg_triplets=99), 32, 8, Tokenizer(config.vocab_file), {})
    (text,) = views.view("vsg", made, Random(0)).groups["vsg"]
    assert text.ids.count(views.tokenizer.sep_id) == len(sample.relations)


def test_what_a_given_up_flip_left_out_does_not_count(config):
    """All mirror images are of an unknown predicate, so the photo stays as it is, with its relations."""
    key, photo, sample = scene(0)
    one_sided = replace(sample, relations=tuple(r for r in sample.relations if r.predicate == "left of"))
    made = Record(key, "0.tar", photo, one_sided)
    views = ViewBuilder(replace(config, flip=1.0), 32, 8, Tokenizer(config.vocab_file), {"left of": 0})
    views.counts["faults"] = 1
    assert views.view("mrc", made, Random(0)).triplets
    assert +views.counts == {"faults": 1}


def test_a_view_has_a_grid_of_patches(config):
    views = ViewBuilder(config, 32, 8, Tokenizer(config.vocab_file), {})
    assert views.grid == (4, 4)
    views.resize(16)
    assert (views.grid, views.image_size) == ((2, 2), 16)
