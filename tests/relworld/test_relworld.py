"""RelWorld's scenes and training sets: what is drawn, what is true of it, and what must not leak."""

import io
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from relvlm.data.shards.schema import Sample
from relvlm.errors import UserError
from relvlm.relworld.build import build, held_out_triplets
from relvlm.relworld.config import PRESETS, WorldConfig, world_config
from relvlm.relworld.corpus import annotated, set_sizes, training_set
from relvlm.relworld.language import name
from relvlm.relworld.lexicon import PREDICATES
from relvlm.relworld.render import draw, jpeg
from relvlm.relworld.scene import Scene, fact_held_out, facts, truth
from relvlm.relworld.shapes import shape_mask, solid_mask
from relvlm.relworld.world import main_relations, sample_scene, sample_siblings

FILLERS = {"a", "an", "the", "is"}
FULL, MINI = PRESETS["full"], PRESETS["mini"]


def scenes(config: WorldConfig, count: int, **wanted: object) -> list[Scene]:
    rng = Random(7)
    return [sample_scene(config, rng, training=True, **wanted) for _ in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_boxes_are_tight_and_inside_the_image(preset: str) -> None:
    for scene in scenes(PRESETS[preset], 60):
        for thing in scene.things:
            x0, y0, x1, y1 = thing.box
            assert 0 <= x0 < x1 <= scene.size and 0 <= y0 < y1 <= scene.size
            alpha = shape_mask(thing.look.shape, thing.side)
            assert alpha.size == (x1 - x0, y1 - y0)
            assert alpha.getbbox() == (0, 0, x1 - x0, y1 - y0)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_pixels_outside_the_boxes_are_background(preset: str) -> None:
    config = world_config(preset, patterns=1, action_share=0.0)
    for scene in scenes(config, 30):
        pixels, inside = np.asarray(draw(scene)), np.zeros((scene.size, scene.size), bool)
        for x0, y0, x1, y1 in (thing.box for thing in scene.things):
            inside[y0:y1, x0:x1] = True
        assert len(np.unique(pixels[~inside], axis=0)) == 1
        assert (pixels[inside] != pixels[~inside][0]).any()


@pytest.mark.parametrize("predicate", PREDICATES)
def test_a_wanted_relation_holds(predicate: str) -> None:
    for scene in scenes(FULL, 15, predicate=predicate):
        assert scene.main[1] == predicate
        assert scene.main in facts(FULL, scene)


def centre(scene: Scene, index: int) -> tuple[float, float]:
    x0, y0, x1, y1 = scene.things[index].box
    return (x0 + x1) / 2, (y0 + y1) / 2


def test_directions_are_those_of_the_centres_and_clearly_dominate() -> None:
    axis = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}
    checked = Counter[str]()
    for scene in scenes(FULL, 150):
        for i, predicate, j in facts(FULL, scene):
            if predicate in axis:
                along, sign = axis[predicate]
                delta = [b - a for a, b in zip(centre(scene, i), centre(scene, j), strict=True)]
                assert sign * delta[along] > 1.5 * abs(delta[1 - along])
                checked[predicate] += 1
    assert set(checked) == set(axis)


def mask_in_image(scene: Scene, index: int) -> np.ndarray:
    thing = scene.things[index]
    canvas = np.zeros((scene.size, scene.size), bool)
    canvas[thing.box[1] : thing.box[3], thing.box[0] : thing.box[2]] = solid_mask(thing.look.shape, thing.side)
    return canvas


@pytest.mark.parametrize("predicate", ["on", "touching"])
def test_shapes_in_contact_meet_and_not_only_their_boxes(predicate: str) -> None:
    for scene in scenes(FULL, 40, predicate=predicate):
        i, _, j = scene.main
        common = mask_in_image(scene, i) & mask_in_image(scene, j)
        assert common.any()
        assert common.sum() < 0.3 * min(mask_in_image(scene, i).sum(), mask_in_image(scene, j).sum())


def test_what_is_inside_lies_within_its_container_and_stays_visible() -> None:
    for scene in scenes(FULL, 60, predicate="inside"):
        i, _, j = scene.main
        inner, outer = mask_in_image(scene, i), mask_in_image(scene, j)
        assert (inner & outer).sum() > 0.75 * inner.sum()
        assert i > j  # drawn later


def test_the_one_in_front_covers_a_part_of_the_one_behind() -> None:
    for scene in scenes(FULL, 40, predicate="in front of"):
        i, _, j = scene.main
        assert i > j
        a, b = scene.things[i].box, scene.things[j].box
        assert min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


@pytest.mark.parametrize("config", [FULL, MINI], ids=["full", "mini"])
def test_a_predicate_and_its_inverse_agree(config: WorldConfig) -> None:
    for scene in scenes(config, 60):
        for i, predicate, j in facts(config, scene):
            inverse = PREDICATES[predicate].inverse
            if inverse:
                assert (j, inverse, i) in facts(config, scene)
                if inverse != predicate:
                    assert truth(scene, i, inverse, j) is False


@pytest.mark.parametrize("action", FULL.actions)
def test_an_action_shows_its_direction_in_the_pixels(action: str) -> None:
    """Exchanging subject and object of an otherwise equal scene changes the picture."""
    for scene in scenes(FULL, 5, predicate=action):
        i, _, j = scene.main
        turned = Scene(scene.size, scene.things, scene.background, actions=((j, action, i),))
        silent = Scene(scene.size, scene.things, scene.background)
        pictures = [np.asarray(draw(s)).astype(int) for s in (scene, turned, silent)]
        for a, b in ((0, 1), (0, 2)):
            changed = (abs(pictures[a] - pictures[b]).max(-1) > 60).sum()
            assert changed >= 12, f"{action}: {changed} pixels differ"


@pytest.mark.parametrize("config", [FULL, MINI], ids=["full", "mini"])
def test_siblings_share_their_labels_and_differ_in_their_relation(config: WorldConfig) -> None:
    rng = Random(3)
    for _ in range(40):
        a, b = sample_siblings(config, rng, training=True)
        assert Counter(t.look for t in a.things) == Counter(t.look for t in b.things)
        assert main_relations(config, a) != main_relations(config, b)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_training_never_shows_a_held_out_combination(preset: str) -> None:
    config = PRESETS[preset]
    forbidden = {tuple(t) for t in held_out_triplets(config)}
    assert forbidden
    for _, _, sample in training_set(config, 5, "graphs", 400, workers=1):
        label = {e.id: f"{e.attributes[-1]} {e.label}" for e in sample.entities}
        for r in sample.relations:
            assert (label[r.subject], r.predicate, label[r.object]) not in forbidden


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_captions_never_state_a_held_out_combination(preset: str) -> None:
    config = world_config(preset, caption_relations=1.0)
    forbidden = held_out_triplets(config)
    texts = [s.captions[0] for _, _, s in training_set(config, 5, "captions", 300, workers=1)]
    stated = [t for t in texts if any(f" {p} " in t for p in config.predicates)]
    assert len(stated) > 200
    plain = [" ".join(w for w in f"< {t} >".lower().replace(".", " ").split() if w not in FILLERS) for t in texts]
    for triplet in forbidden:
        phrase = f" {' '.join(triplet)} "
        assert not any(phrase in text for text in plain)


def test_evaluation_may_show_held_out_combinations() -> None:
    rng = Random(1)
    shown = [sample_scene(MINI, rng, training=False) for _ in range(200)]
    assert any(fact_held_out(MINI, scene, fact) for scene in shown for fact in facts(MINI, scene))


def test_each_fact_of_a_mirrored_pair_is_annotated_at_least_one_way() -> None:
    rng = Random(2)
    config = world_config("mini", mirrored_share=0.3)
    ways = Counter[int]()
    for scene in scenes(config, 100):
        kept = annotated(config, scene, rng)
        for i, predicate, j in facts(config, scene):
            inverse = PREDICATES[predicate].inverse
            if inverse is None:
                assert (i, predicate, j) in kept
            elif i < j:
                count = ((i, predicate, j) in kept) + ((j, inverse, i) in kept)
                assert count >= 1
                ways[count] += 1
    assert ways[1] > ways[2] > 0


def triplet_kinds(samples: list[Sample]) -> list[tuple[str, str, str]]:
    rows = []
    for sample in samples:
        label = {e.id: f"{e.attributes[-1]} {e.label}" for e in sample.entities}
        rows += [(label[r.subject], r.predicate, label[r.object]) for r in sample.relations]
    return rows


def label_only_accuracy(train: list[tuple[str, str, str]], test: list[tuple[str, str, str]]) -> float:
    """Naive Bayes on (subject, object), the shapes, and the pair itself, scored on a class-balanced test split."""
    classes = sorted({r for _, r, _ in train})
    prior = Counter(r for _, r, _ in train)
    seen: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)

    def keys(s: str, o: str) -> list[tuple[str, str]]:
        return [("s", s), ("o", o), ("ss", s.split()[1]), ("os", o.split()[1]), ("p", f"{s}|{o}")]

    for s, r, o in train:
        for key in keys(s, o):
            seen[key][r] += 1
    by_class: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for row in test:
        by_class[row[1]].append(row)
    size = min(len(by_class[c]) for c in classes)
    balanced = [row for c in classes for row in by_class[c][:size]]

    def guess(s: str, o: str) -> str:
        # Rates per class, so that frequent relations have no head start on the balanced split.
        return max(classes, key=lambda c: sum(np.log((seen[k][c] + 1) / (prior[c] + 20)) for k in keys(s, o)))

    return sum(guess(s, o) == r for s, r, o in balanced) / len(balanced)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "images"), [("mini", 6000), ("full", 2400)])
def test_labels_alone_do_not_tell_the_relation(preset: str, images: int) -> None:
    config = PRESETS[preset]
    samples = [s for _, _, s in training_set(config, 11, "graphs", images, workers=2)]
    rows = triplet_kinds(samples)
    split = int(0.7 * len(rows))
    classes = len({r for _, r, _ in rows})
    assert classes == len(config.predicates)
    accuracy = label_only_accuracy(rows[:split], rows[split:])
    assert accuracy < 1.35 / classes, f"{accuracy:.3f} with {classes} classes"


def test_the_label_only_classifier_would_see_a_leak() -> None:
    samples = [s for _, _, s in training_set(MINI, 11, "graphs", 1000, workers=1)]
    rows = triplet_kinds(samples)
    leaking = [(s, "pulling" if s.split()[1] == "circle" and i % 3 else r, o) for i, (s, r, o) in enumerate(rows)]
    split = int(0.7 * len(rows))
    assert label_only_accuracy(leaking[:split], leaking[split:]) > 1.35 / len(MINI.predicates)


def test_output_depends_on_the_seed_and_not_on_the_workers() -> None:
    def records(seed: int, workers: int) -> list[tuple[str, bytes, Sample]]:
        return list(training_set(FULL, seed, "entities", 40, workers))

    assert records(0, 1) == records(0, 2)
    assert [r[1] for r in records(0, 1)] != [r[1] for r in records(1, 1)]


def test_the_three_sets_show_different_images() -> None:
    first = {name: next(iter(training_set(FULL, 0, name, 2, 1)))[1] for name in set_sizes(FULL, 100)}
    assert len(set(first.values())) == 3


def test_every_set_keeps_siblings_together() -> None:
    for images in (20, 21, 1000, 1003):
        sizes = set_sizes(FULL, images)
        assert all(size > 0 and size % 2 == 0 for size in sizes.values())
        assert images <= sum(sizes.values()) <= images + 2


def test_each_set_holds_what_its_role_allows() -> None:
    made = {name: [s for _, _, s in training_set(FULL, 0, name, 20, 1)] for name in set_sizes(FULL, 100)}
    assert all(s.captions and not s.entities and not s.relations for s in made["captions"])
    assert all(s.entities and not s.relations for s in made["entities"])
    assert any(e.id.startswith("p") for s in made["entities"] for e in s.entities)
    assert all(s.entities and s.relations for s in made["graphs"])


def test_records_decode_to_the_size_they_state() -> None:
    for _, image, sample in training_set(MINI, 0, "graphs", 10, 1):
        with Image.open(io.BytesIO(image)) as picture:
            assert picture.size == (sample.width, sample.height) == (32, 32)


def test_an_image_survives_jpeg() -> None:
    for scene in scenes(FULL, 5):
        stored = np.asarray(Image.open(io.BytesIO(jpeg(scene)))).astype(int)
        assert abs(stored - np.asarray(draw(scene)).astype(int)).mean() < 6


def test_kinds_are_unique_within_a_scene() -> None:
    for scene in scenes(FULL, 60):
        names = [name(t.look) for t in scene.things]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"shapes": 99}, "shapes: 99"),
        ({"max_objects": 2, "min_objects": 4}, "max_objects"),
        ({"graph_fraction": 0.6, "entity_fraction": 0.6}, "graph_fraction"),
        ({"shapez": 3}, "shapez"),
        ({"predicates": ("under",)}, "under"),
    ],
)
def test_a_wrong_knob_is_one_clear_error(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        world_config("full", **knobs)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="full, mini"):
        world_config("tiny")


def test_a_taken_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="--overwrite"):
        build(tmp_path, 20, 0, preset="mini")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_too_few_images_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="images: 3"):
        build(tmp_path / "w", 3, 0)
    assert not any(tmp_path.iterdir())


def test_a_swapped_sibling_differs_by_the_exchange_alone() -> None:
    config, rng = world_config("mini", swapped_share=1.0), Random(4)
    for _ in range(30):
        a, b = sample_siblings(config, rng, training=True)
        assert [t.box for t in a.things] == [t.box for t in b.things]
        assert a.actions == b.actions
        assert [t.look for t in a.things] == [t.look for t in reversed(b.things)]
