"""Samples that cannot be read: replaced, counted, logged; those that cannot be used: no part of an epoch."""

import json
import logging
from dataclasses import replace

import pytest
from support.scenes import COUNT, left_out, load, only, same, scene, steps, texts, write
from support.shards import shard_set

from relvlm.config.schema import (
    DatasetConfig,
    KindCounts,
    KindRatios,
)
from relvlm.data.shards.shard_file import image_suffix
from relvlm.data.text import text_key
from relvlm.data.tools.index import index_set
from relvlm.errors import UserError


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
    return replace(captions, batch=KindCounts(captions=COUNT - 1))  # an epoch: one has no caption


@pytest.mark.parametrize("workers", [0, 2])
def test_faulty_samples_are_replaced_and_counted(faulty, workers, caplog):
    with caplog.at_level(logging.WARNING):
        ((batch,),) = steps(replace(faulty, workers=workers), 1)
    bad = [text_key(f"scenes/{i}") for i in (3, 7, 11)]
    assert batch.images == COUNT - 1
    assert not set(bad) & set(batch.image_key.tolist())
    assert len(set(batch.image_key.tolist())) >= COUNT - 3 - 1  # but for those that take their places
    assert left_out([[batch]])["faults"] >= 2
    if workers == 0:  # workers write to their own log
        assert "000000.tar: 0003: corrupt image" in caplog.text
        assert "000001.tar: 0011: corrupt image" in caplog.text
        assert "0007" not in caplog.text  # merely of no use for captions


def test_replacement_does_not_depend_on_workers_or_resume(faulty):
    run = load(faulty, 3)
    assert same(run[2], load(faulty, 1, start_step=2)[0])
    assert same(run[2], load(replace(faulty, workers=1), 3)[2])


def test_a_fault_is_logged_once_and_counted_wherever_it_is_met(faulty, caplog):
    with caplog.at_level(logging.WARNING):
        read = steps(faulty, 4)
    assert left_out(read)["faults"] >= 8 and len(caplog.records) == 2


def test_a_dataset_of_no_use_for_its_kind_ends_the_run(config, tmp_path):
    def bare(number):
        key, image, sample = scene(number)
        return key, image, replace(sample, captions=())

    dataset = write(tmp_path, "bare", map(bare, range(COUNT)))
    captions = replace(only(config, "captions"), captions=[dataset])
    message = r"data\.captions\[0\]\.path: \S+bare: none of its 24 records has what captions batches need, caption \("
    with pytest.raises(UserError, match=message):
        load(captions, 1)


def test_a_dataset_of_damaged_photos_ends_the_run(config, tmp_path):
    def torn(number):
        key, image, sample = scene(number)
        return key, image[: len(image) // 2], sample

    captions = replace(only(config, "captions"), captions=[write(tmp_path, "torn", map(torn, range(COUNT)))])
    with pytest.raises(UserError, match=r"no use for captions batches; the last: 00000.*corrupt image"):
        load(captions, 1)


def test_annotation_of_another_size_is_a_fault(config, tmp_path, caplog):
    def shrunk(number):
        key, image, sample = scene(number)
        return key, image, replace(sample, width=640, height=480) if number == 0 else sample

    dataset = write(tmp_path, "sizes", map(shrunk, range(COUNT)))
    sizes = replace(only(config, "captions"), captions=[dataset], batch=KindCounts(captions=COUNT))
    assert left_out(steps(sizes, 1))["faults"] >= 1
    assert "000000.tar: 0000: image is 64x48, annotation 640x480" in caplog.text


ODD = [
    (lambda r: r.update(captions="a dog"), "captions: 'a dog' is no list"),
    (lambda r: r.update(captions=[None]), r"captions[0]: None is no text"),
    (lambda r: r.update(caption=["a dog"]), "caption: unknown field (did you mean captions?)"),
    (lambda r: r["entities"][0].update(id=0), "entities[0].id: 0 is no text"),
    (lambda r: r["entities"][0].update(box=[0, 0, float("nan"), 4]), "entities[0].box: [0, 0, nan, 4] is empty or"),
    (lambda r: r.update(width="64"), "width: '64' is no number of pixels"),
]


@pytest.mark.parametrize(("change", "reason"), ODD)
def test_a_record_of_another_form_is_named_by_the_index_and_no_part_of_an_epoch(config, tmp_path, change, reason):
    members = []
    for number in range(COUNT):
        key, image, sample = scene(number)
        record = sample.to_json()
        if number == 5:
            change(record)
        members += [(f"{key}.{image_suffix(image)}", image), (f"{key}.json", json.dumps(record).encode())]
    shard_set(tmp_path / "odd", members, COUNT)
    captions = replace(only(config, "captions"), captions=[DatasetConfig(str(tmp_path / "odd"))])
    ((batch,),) = steps(replace(captions, batch=KindCounts(captions=COUNT - 1)), 1)
    assert set(batch.image_key.tolist()) == {text_key(f"scenes/{i}") for i in range(COUNT) if i != 5}
    faulty = []
    index_set(tmp_path / "odd", faulty)
    assert len(faulty) == 1 and faulty[0].startswith(f"0.tar: 0005: invalid sample: {reason}")


def test_long_captions_are_cut_and_counted(config):
    short = replace(only(config, "captions"), max_text_tokens=4)
    ((batch,),) = steps(short, 1)
    assert all(len(t.split()) <= 4 for t in texts(batch))
    assert left_out([[batch]])["truncated_texts"] == 8
    ((wordy,),) = steps(replace(only(config, "captions"), max_words=2), 1)
    assert set(texts(wordy)) == {"[CLS] picture number [SEP]"}
    assert left_out([[wordy]])["cut_captions"] == 8


def test_a_step_in_chunks_tells_what_was_left_out_once(faulty):
    chunked = replace(faulty, batch=KindCounts(captions=20), max_words=2)
    whole, (one, two) = steps(chunked, 1)[0], steps(chunked, 1, accumulate=2)[0]
    assert one.left_out == whole[0].left_out and one.left_out[2] >= 20 and set(two.left_out) == {0}
