"""VSR and SVO files: balanced, and true where they say so."""

from collections import Counter, defaultdict
from pathlib import Path

from support.worlds import PAIRS, holds, svo, vsr

from relvlm.relworld.bank import Bank
from relvlm.relworld.config import WorldConfig
from relvlm.relworld.pairs import SVO_COLUMNS, svo_rows, vsr_rows


def test_vsr_labels_are_true_and_neither_text_nor_image_gives_them_away(config: WorldConfig) -> None:
    bank = Bank(config, 0)
    rows = vsr_rows(bank, "test", 200)
    by_caption, by_image = defaultdict(list), defaultdict(list)
    for row in rows:
        scene = bank.scenes[int(row["image"].removesuffix(".jpg"))]
        assert holds(config, scene, row["caption"]) is bool(row["label"])
        by_caption[row["caption"]].append(row["label"])
        by_image[row["image"]].append(row["label"])
    assert all(2 * sum(labels) == len(labels) for labels in (*by_caption.values(), *by_image.values()))


def test_vsr_files_have_the_official_fields_and_both_kinds_of_combination(folder: Path) -> None:
    for split, count in (("dev", PAIRS // 2), ("test", PAIRS)):
        rows = vsr(folder, split)
        assert len(rows) == count
        assert {"image", "image_link", "caption", "label", "relation"} <= set(rows[0])
        assert all(f" {row['relation']} " in row["caption"] for row in rows)
        assert {row["held_out"] for row in rows} == {True, False}


def test_svo_sentences_hold_in_the_positive_image_only(config: WorldConfig) -> None:
    bank = Bank(config, 0)
    rows = svo_rows(bank, 120)
    for row in rows:
        assert holds(config, bank.scenes[row["pos_image_id"]], row["sentence"]) is True
        assert holds(config, bank.scenes[row["neg_image_id"]], row["sentence"]) is False
        assert row["subj_neg"] + row["verb_neg"] + row["obj_neg"] == 1
        changed = [a != b for a, b in zip(row["pos_triplet"].split(","), row["neg_triplet"].split(","), strict=True)]
        assert changed == [row["subj_neg"], row["verb_neg"], row["obj_neg"]]


def test_svo_images_are_right_as_often_as_wrong(folder: Path) -> None:
    rows = svo(folder)
    assert tuple(rows[0])[: len(SVO_COLUMNS)] == SVO_COLUMNS
    right, wrong = Counter(r["pos_image_id"] for r in rows), Counter(r["neg_image_id"] for r in rows)
    assert right == wrong
    assert {r["verb_neg"] for r in rows} == {"True", "False"}
