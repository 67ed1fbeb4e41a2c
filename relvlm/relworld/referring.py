"""RefCOCO files: an expression that means one thing of an image, and its box."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from relvlm.relworld.bank import Bank, Row, open_facts
from relvlm.relworld.config import WorldConfig
from relvlm.relworld.language import name
from relvlm.relworld.scene import Scene

Pool = list[tuple[int, Scene]]


def write_refcoco(bank: Bank, pool: Pool, folder: Path) -> None:
    """MDETR's layout: `finetune_refcoco_val.json`, things by name, and `..refcocog_val.json`, by a relation."""
    folder.mkdir(parents=True)
    for split, related in (("refcoco_val", False), ("refcocog_val", True)):
        rng, images, annotations = bank.rng(f"refcoco/{split}"), list[Row](), list[Row]()
        for n in range(max(20, bank.config.benchmark_pairs // 5)):
            image, scene = rng.choice(pool)
            expression, thing = _expression(bank.config, rng, scene, related)
            x0, y0, x1, y1 = scene.things[thing].box
            shown = {"file_name": f"{image}.jpg", "width": scene.size, "height": scene.size, "caption": expression}
            images.append({**shown, "id": n, "original_id": image, "dataset_name": split.partition("_")[0]})
            annotations.append({"id": n, "image_id": n, "bbox": [x0, y0, x1 - x0, y1 - y0], "original_id": n})
        content = {"images": images, "annotations": annotations}
        (folder / f"finetune_{split}.json").write_text(json.dumps(content, indent=1))


def _expression(config: WorldConfig, rng: Random, scene: Scene, related: bool) -> tuple[str, int]:
    """Words for a thing, alone or by where another is, and its place in the scene."""
    known = open_facts(config, scene, config.predicates) if related else []
    if known:
        i, predicate, j = rng.choice(known)
        return f"{name(scene.things[i].look)} {predicate} the {name(scene.things[j].look)}", i
    i = rng.randrange(len(scene.things))
    return name(scene.things[i].look), i
