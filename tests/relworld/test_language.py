"""The vocabulary covers every text."""

import json
import re
from pathlib import Path

from support.worlds import objects, svo, vsr

from relvlm.relworld.config import WorldConfig
from relvlm.relworld.corpus import training_set
from relvlm.relworld.language import SPECIAL_TOKENS, vocabulary


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
