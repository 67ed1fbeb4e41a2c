"""The vocabulary covers every text."""

import json
import re
from pathlib import Path
from random import Random

import pytest
from support.worlds import FULL, MINI, fingerprint, objects, scenes, svo, vsr

from relvlm.relworld.config import WorldConfig, world_config
from relvlm.relworld.corpus import training_set
from relvlm.relworld.language import SPECIAL_TOKENS, article, attributes, caption, paragraph, statement, vocabulary
from relvlm.relworld.scene import Background, Look, Scene, Thing


def texts(folder: Path) -> list[str]:
    found = [row["caption"] for split in ("dev", "test") for row in vsr(folder, split)]
    found += [row["sentence"] for row in svo(folder)]
    found += [r[k] for rs in objects(folder, "valse").values() for r in rs.values() for k in ("caption", "foil")]
    keys = ("caption", "negative_caption")
    found += [r[k] for rs in objects(folder, "sugarcrepe").values() for r in rs.values() for k in keys]
    found += [r["paragraph"] for r in json.loads((folder / "paragraphs/paragraphs_v1.json").read_text())]
    images = json.loads((folder / "coco/karpathy.json").read_text())["images"]
    return found + [s["raw"] for image in images for s in image["sentences"]]


def test_the_vocabulary_has_every_word_of_every_text(folder: Path, config: WorldConfig) -> None:
    words = set(vocabulary())
    found = texts(folder)
    for name in ("captions", "entities", "graphs"):
        for _, _, sample in training_set(config, 1, name, 400, workers=1):  # type: ignore[arg-type]
            found += [*sample.captions, *(r.predicate for r in sample.relations)]
            found += [" ".join((*e.attributes, e.label)) for e in sample.entities]
    used = {token for text in found for token in re.findall(r"[a-z]+|[^a-z\s]", text.lower())}
    assert used <= words, sorted(used - words)


def test_the_vocabulary_is_in_the_form_of_bert() -> None:
    tokens = vocabulary()
    assert tuple(tokens[:5]) == SPECIAL_TOKENS
    assert len(set(tokens)) == len(tokens)
    assert fingerprint(tokens) == "33a923513374"


@pytest.mark.parametrize("config", [FULL, MINI], ids=["full", "mini"])
def test_the_same_scenes_are_told_alike_in_every_version(config: WorldConfig) -> None:
    rng = Random(0)
    told = [
        (caption(scene, config, rng), caption(scene, config, rng, noise=1.0), paragraph(scene, config, rng, []))
        for scene in scenes(config, 100)
    ]
    assert fingerprint(told) == {5: "d9119a8a3eb3", 2: "c0d6718d1b2f"}[config.max_objects]


def test_articles_and_lists_are_english() -> None:
    assert [article(word) for word in ("orange star", "hourglass", "house", "red cross")] == [
        "an orange star",
        "an hourglass",
        "a house",
        "a red cross",
    ]
    assert statement("red star", "contains", "moon") == "The red star contains the moon."
    assert statement("red star", "on", "moon") == "The red star is on the moon."


def test_adjectives_come_as_often_as_asked_for_and_colour_last() -> None:
    things = (Thing(Look("star", "red", "striped"), (0, 0, 9, 9)), Thing(Look("moon", "blue"), (0, 0, 16, 16)))
    scene = Scene(64, things, Background("white"))
    assert attributes(scene, 0, FULL, Random(0), share=1) == ("small", "striped", "red")
    assert attributes(scene, 0, MINI, Random(0), share=1) == ("striped", "red")
    assert attributes(scene, 0, FULL, Random(0), share=0) == ("red",)
    assert attributes(scene, 1, FULL, Random(0), share=1) == ("blue",)
    made = [attributes(scene, 0, FULL, Random(seed)) for seed in range(400)]
    assert sum("small" in words for words in made) == pytest.approx(200, abs=40)


def test_captions_without_noise_or_drops_name_every_thing_rightly() -> None:
    config = world_config("full", caption_relations=0.0)
    for scene in scenes(config, 60):
        text = caption(scene, config, Random(1), noise=0.0, drop=0.0)
        assert all(text.count(thing.look.shape) >= 1 for thing in scene.things)
