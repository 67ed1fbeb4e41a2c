"""Samples that cannot be read or used: replaced, counted, limited in number."""

import json
import logging
from dataclasses import replace

import pytest
from support.scenes import COUNT, load, loader_of, only, same, scene, texts, write
from support.shards import shard_set

from relvlm.config.schema import (
    DatasetConfig,
    KindCounts,
    KindRatios,
)
from relvlm.data.shards.store import image_suffix
from relvlm.data.text import text_key
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
    return replace(captions, batch=KindCounts(captions=COUNT))


@pytest.mark.parametrize("workers", [0, 2])
def test_faulty_samples_are_replaced_and_counted(faulty, workers, caplog):
    loader = loader_of(replace(faulty, workers=workers))
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
    loader = loader_of(faulty)
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


ODD = [
    (lambda r: r.update(captions="a dog"), "captions: 'a dog' is no list"),
    (lambda r: r.update(captions=[None]), r"captions[0]: None is no text"),
    (lambda r: r.update(caption=["a dog"]), "caption: unknown field (did you mean captions?)"),
    (lambda r: r["entities"][0].update(id=0), "entities[0].id: 0 is no text"),
    (lambda r: r["entities"][0].update(box=[0, 0, float("nan"), 4]), "entities[0].box: [0, 0, nan, 4] is empty or"),
    (lambda r: r.update(width="64"), "width: '64' is no number of pixels"),
]


@pytest.mark.parametrize(("change", "reason"), ODD)
def test_a_record_of_another_form_is_logged_counted_and_replaced(config, tmp_path, caplog, change, reason):
    members = []
    for number in range(COUNT):
        key, image, sample = scene(number)
        record = sample.to_json()
        if number == 5:
            change(record)
        members += [(f"{key}.{image_suffix(image)}", image), (f"{key}.json", json.dumps(record).encode())]
    shard_set(tmp_path / "odd", members, COUNT)
    captions = replace(only(config, "captions"), captions=[DatasetConfig(str(tmp_path / "odd"))])
    loader = loader_of(replace(captions, batch=KindCounts(captions=COUNT)))
    (batch,) = next(loader)
    assert loader.counts()["faults"] == 1 and text_key("scenes/5") not in batch.image_key.tolist()
    assert f"{tmp_path / 'odd'}: 0.tar: 0005: invalid sample: {reason}" in caplog.text


def test_long_captions_are_cut_and_counted(config):
    short = replace(only(config, "captions"), max_text_tokens=4)
    loader = loader_of(short)
    (batch,) = next(loader)
    assert all(len(t.split()) <= 4 for t in texts(batch))
    assert loader.counts()["truncated_texts"] == 8
    wordy = loader_of(replace(only(config, "captions"), max_words=2))
    assert set(texts(*next(wordy))) == {"[CLS] picture number [SEP]"}
    assert wordy.counts()["cut_captions"] == 8
