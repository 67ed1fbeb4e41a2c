"""RelWorld's training sets: what each holds, and what must not leak."""

import io
from collections import Counter, defaultdict
from random import Random

import numpy as np
import pytest
from PIL import Image
from support.worlds import FILLERS, FULL, MINI, fingerprint, scenes

from relvlm.data.shards.schema import Sample
from relvlm.relworld.build import held_out_triplets
from relvlm.relworld.config import PRESETS, world_config
from relvlm.relworld.corpus import SetName, annotated, set_sizes, training_set
from relvlm.relworld.lexicon import COLOURS, PREDICATES
from relvlm.relworld.scene import facts


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


@pytest.mark.parametrize(
    ("name", "expected"), [("captions", "a8bbea80788c"), ("entities", "15a230e15e76"), ("graphs", "aa830109e28f")]
)
def test_the_same_arguments_make_the_same_records_in_every_version(name: SetName, expected: str) -> None:
    records = [(key, sample.to_json()) for c in (FULL, MINI) for key, _, sample in training_set(c, 0, name, 40, 1)]
    assert fingerprint(records) == expected


def test_an_odd_number_of_images_is_rounded_down() -> None:
    assert [key for key, _, _ in training_set(MINI, 0, "graphs", 5, 1)] == [f"graphs{n:08d}" for n in range(4)]


def test_sets_have_their_fractions_of_the_images() -> None:
    assert set_sizes(FULL, 1000) == {"captions": 500, "entities": 300, "graphs": 200}
    assert set_sizes(FULL, 999) == {"captions": 500, "entities": 300, "graphs": 200}
    assert set_sizes(FULL, 2) == {"captions": 2, "entities": 2, "graphs": 2}


def test_a_phrase_is_of_two_things_and_spans_both() -> None:
    config = world_config("full", phrases=4)
    for _, _, sample in training_set(config, 0, "entities", 10, 1):
        things = {f"{e.attributes[-1]} {e.label}": e.box for e in sample.entities if e.id[0] == "e"}
        phrases = [e for e in sample.entities if e.id[0] == "p"]
        assert [e.id for e in phrases] == ["p0", "p1", "p2", "p3"]
        for phrase in phrases:
            first, second = (things[part.split(" ", 1)[1]] for part in phrase.label.split(" and "))
            assert first != second
            assert phrase.box == (*map(min, first[:2], second[:2]), *map(max, first[2:], second[2:]))


def test_a_fact_whose_inverse_is_not_in_use_is_kept() -> None:
    config = world_config("mini", predicates=("left of", "above"), action_share=0.0)
    for scene in scenes(config, 20):
        assert annotated(config, scene, Random(0)) == list(facts(config, scene))


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_neither_ids_nor_order_tell_the_relation(preset: str) -> None:
    samples = [s for _, _, s in training_set(PRESETS[preset], 3, "graphs", 1600, workers=1)]
    for predicate in ("pushing", "pulling", "left of", *(("behind",) if preset == "full" else ())):
        found = [r for s in samples for r in s.relations if r.predicate == predicate]
        lower = sum(r.subject < r.object for r in found) / len(found)
        assert abs(lower - 0.5) < 4 * 0.5 / len(found) ** 0.5, f"{predicate}: {lower:.2f} of {len(found)}"
    listed = Counter(s.relations[0].predicate for s in samples if len(s.relations) > 1)
    last = Counter(s.relations[-1].predicate for s in samples if len(s.relations) > 1)
    for predicate, count in listed.items():
        assert abs(count - last[predicate]) < 5 * (2 * max(count, 20)) ** 0.5, predicate


def test_noise_leaves_relation_words_that_say_nothing() -> None:
    """The control of VSG: the same things, the same words as often, but of other scenes."""
    true, noisy = (
        [s for _, _, s in training_set(world_config("mini", relation_noise=n), 3, "graphs", 1200, workers=1)]
        for n in (0, 1)
    )
    assert len({r.predicate for s in noisy for r in s.relations}) == len(MINI.predicates)

    def left(samples: list[Sample]) -> float:
        """Of relations that say left or right: share whose boxes agree."""
        said = [(s, r) for s in samples for r in s.relations if r.predicate in ("left of", "right of")]
        x = [{e.id: e.box[0] + e.box[2] for e in s.entities} for s, _ in said]
        agree = [(x[r.subject] < x[r.object]) == (r.predicate == "left of") for x, (_, r) in zip(x, said, strict=True)]
        return sum(agree) / len(agree)

    assert left(true) == 1
    assert left(noisy) == pytest.approx(0.5, abs=0.08)


def test_boxes_stay_with_their_labels() -> None:
    """Things are listed in another order than drawn: each box must still hold its thing's colour."""
    for _, image, sample in training_set(MINI, 3, "entities", 40, workers=1):
        pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).astype(int)
        for entity in sample.entities:
            if " " not in entity.label:
                x0, y0, x1, y1 = (round(v) for v in entity.box)
                palette = np.array([COLOURS[c] for c in MINI.colour_names])
                apart = np.abs(pixels[y0:y1, x0:x1, None] - palette).sum(axis=-1)
                counts = (apart < 150).sum(axis=(0, 1))
                assert MINI.colour_names[counts.argmax()] == entity.attributes[-1]
