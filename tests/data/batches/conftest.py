"""Shard sets of made scenes, and a config that draws from them."""

from dataclasses import replace

import pytest
from support.scenes import COUNT, DIGITS, WORDS, scene, write

from relvlm.config.schema import (
    DataConfig,
    DatasetConfig,
    KindCounts,
    KindRatios,
    NegativePools,
)


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
        negative_pool=NegativePools(captions=2, entities=1, vsg=2),
        ratio=KindRatios(captions=2, entities=1.5, mrc=1, vsg=1),
        regions_per_image=2,
    )
