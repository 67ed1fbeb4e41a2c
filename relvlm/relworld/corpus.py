"""The three training sets: captions, entities and scene graphs, made in pairs of siblings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from random import Random
from typing import Literal

from relvlm.data.shards.schema import Entity, Relation, Sample
from relvlm.relworld.config import WorldConfig
from relvlm.relworld.language import article, attributes, caption, name
from relvlm.relworld.lexicon import PREDICATES
from relvlm.relworld.render import jpeg
from relvlm.relworld.scene import Fact, IntBox, Scene, facts
from relvlm.relworld.world import sample_predicate, sample_siblings

SetName = Literal["captions", "entities", "graphs"]
Record = tuple[str, bytes, Sample]
_CHUNK = 16


@dataclass(frozen=True)
class PairTask:
    """Pair number `index` of one training set; the record is a function of this and nothing else."""

    config: WorldConfig
    seed: int
    set_name: SetName
    index: int


def set_sizes(config: WorldConfig, images: int) -> dict[SetName, int]:
    """How many images each set gets; all even, for siblings stay together."""
    pairs = (images + 1) // 2
    graphs = max(1, round(pairs * config.graph_fraction))
    entities = max(1, round(pairs * config.entity_fraction))
    return {"captions": 2 * max(1, pairs - graphs - entities), "entities": 2 * entities, "graphs": 2 * graphs}


def _entity(scene: Scene, index: int, number: int, config: WorldConfig, rng: Random) -> Entity:
    thing = scene.things[index]
    x0, y0, x1, y1 = (float(v) for v in thing.box)
    return Entity(f"e{number}", thing.look.shape, (x0, y0, x1, y1), attributes(scene, index, config, rng))


def _hull(boxes: list[IntBox]) -> IntBox:
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _phrase_entity(scene: Scene, number: int, shown: list[int], rng: Random) -> Entity:
    """A region phrase, as Visual Genome's region descriptions: two things in one box."""
    two = [scene.things[i] for i in rng.sample(shown, 2)]
    text = " and ".join(article(name(thing.look)) for thing in two)
    x0, y0, x1, y1 = _hull([thing.box for thing in two])
    return Entity(f"p{number}", text, (float(x0), float(y0), float(x1), float(y1)))


def annotated(config: WorldConfig, scene: Scene, rng: Random) -> list[Fact]:
    """The facts an annotator writes down: of a fact and its mirror image both, or either one."""
    kept: list[Fact] = []
    for i, predicate, j in facts(config, scene):
        inverse = PREDICATES[predicate].inverse
        if inverse is None or inverse not in config.predicates:
            kept.append((i, predicate, j))
        elif (i, j) < (j, i):
            pair = [(i, predicate, j), (j, inverse, i)]
            kept.extend(pair if rng.random() < config.mirrored_share else [rng.choice(pair)])
    return kept


def _noted(config: WorldConfig, predicate: str, rng: Random) -> str:
    """The predicate, or, as often as `relation_noise` says, one drawn as that of any scene."""
    noisy = config.relation_noise and rng.random() < config.relation_noise
    return sample_predicate(config, rng) if noisy else predicate


def _sample(task: PairTask, scene: Scene, image_id: str, rng: Random) -> Sample:
    config = task.config
    entities: list[Entity] = []
    relations: tuple[Relation, ...] = ()
    # Things are listed in an order that says nothing: that of drawing tells who acts and what lies behind.
    shown = rng.sample(range(len(scene.things)), len(scene.things))
    if task.set_name != "captions":
        entities = [_entity(scene, i, n, config, rng) for n, i in enumerate(shown)]
    if task.set_name == "entities":
        entities += [_phrase_entity(scene, n, shown, rng) for n in range(config.phrases)]
    if task.set_name == "graphs":
        facts_kept = annotated(config, scene, rng)
        rng.shuffle(facts_kept)
        relations = tuple(
            Relation(f"e{shown.index(i)}", _noted(config, p, rng), f"e{shown.index(j)}") for i, p, j in facts_kept
        )
    return Sample(
        image_id=image_id,
        width=scene.size,
        height=scene.size,
        source="relworld",
        captions=(caption(scene, config, rng),),
        entities=tuple(entities),
        relations=relations,
    )


def make_pair(task: PairTask) -> list[Record]:
    """The two records of a pair of siblings."""
    rng = Random(f"{task.seed}/{task.set_name}/{task.index}")
    records = []
    for k, scene in enumerate(sample_siblings(task.config, rng, training=True)):
        key = f"{task.set_name}{2 * task.index + k:08d}"
        records.append((key, jpeg(scene), _sample(task, scene, key, rng)))
    return records


def training_set(config: WorldConfig, seed: int, set_name: SetName, images: int, workers: int) -> Iterator[Record]:
    """The records of one set, in order, the same for any number of workers."""
    tasks = (PairTask(config, seed, set_name, index) for index in range(images // 2))
    if workers <= 1:
        for task in tasks:
            yield from make_pair(task)
        return
    method = "fork" if "fork" in get_all_start_methods() else "spawn"
    with get_context(method).Pool(workers) as pool:
        for records in pool.imap(make_pair, tasks, chunksize=_CHUNK):
            yield from records
