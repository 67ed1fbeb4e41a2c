"""VSR and SVO files: balanced, and true where they say so."""

from collections import Counter, defaultdict
from pathlib import Path

from support.worlds import PAIRS, fingerprint, holds, svo, vsr

from relvlm.relworld.bank import Bank
from relvlm.relworld.config import WorldConfig, world_config
from relvlm.relworld.pairs import SVO_COLUMNS, svo_rows, vsr_rows, write_svo, write_vsr


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


SMALL = world_config("mini", benchmark_pairs=42)


def test_rows_come_in_fours_and_twos_and_no_scene_is_left_over(tmp_path: Path) -> None:
    bank = Bank(SMALL, 0)
    write_vsr(bank, tmp_path / "vsr")
    assert [len(vsr(tmp_path, split)) for split in ("dev", "test")] == [24, 44]
    assert len(bank.scenes) == (24 + 44) / 2
    write_svo(bank, tmp_path / "svo")
    assert len(svo(tmp_path)) == 26 and len(bank.scenes) == 34 + 26
    assert len(vsr_rows(bank, "dev", 6)) == 6 and len(svo_rows(bank, 3)) == 3


def test_half_of_svo_changes_the_verb_and_a_quarter_each_end() -> None:
    changed = Counter(c for row in svo_rows(Bank(SMALL, 0), 40) for c in SVO_COLUMNS[-3:] if row[c])
    assert changed == {"verb_neg": 20, "subj_neg": 10, "obj_neg": 10}


def test_vsr_votes_are_for_the_label() -> None:
    for row in vsr_rows(Bank(SMALL, 0), "dev", 8):
        assert row["annotator_id"] == 0
        assert row["vote_true_validator_id"] == [0] * row["label"]
        assert row["vote_false_validator_id"] == [0] * (1 - row["label"])


def test_the_same_arguments_make_the_same_rows_in_every_version(config: WorldConfig) -> None:
    bank = Bank(config, 0)
    rows = vsr_rows(bank, "test", 60), svo_rows(bank, 80)
    assert fingerprint(rows) == {5: "74d7c7d0f764", 2: "31ec8b66a423", 3: "5eb5387234bc"}[config.max_objects]


def test_a_world_of_one_action_has_verbs_to_change() -> None:
    config = world_config("full", predicates=("left of", "right of", "pushing"))
    rows = svo_rows(Bank(config, 0), 8)
    assert len(rows) == 8
