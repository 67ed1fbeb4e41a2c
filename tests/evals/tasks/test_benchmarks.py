"""Official files in, pairs out; scores in, metrics out; bad files refused by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from official_files import COCO_CC_SLICES, SUGARCREPE, VALSE, VSR, linked

from relvlm.errors import UserError
from relvlm.evals.files import find_image
from relvlm.evals.run import PAIR_TASKS, rescore
from relvlm.evals.tasks import sugarcrepe, svo, valse, vsr, winoground

SVO_HEADER = (
    "sentence,pos_triplet,neg_triplet,pos_url,neg_url,pos_image_id,neg_image_id,subj_neg,verb_neg,obj_neg"
)


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scored(rows: list[dict], scores: list[float]) -> list[dict]:
    return [{**row, "score": score} for row, score in zip(rows, scores, strict=True)]


# ---- official files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("release", "sizes"), [("random_2022", (1012, 2024)), ("random", (1097, 2195))])
def test_vsr_reads_both_releases(shared: Path, tmp_path: Path, release: str, sizes: tuple[int, int]) -> None:
    pairs = vsr.load(linked(shared / "data/benchmarks/vsr" / release, VSR, tmp_path / "vsr")).pairs
    found = [pair.row["split"] for pair in pairs]
    assert (found.count("dev"), found.count("test")) == sizes


def test_vsr_mapping_covers_the_2022_release(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared / "data/benchmarks/vsr/random_2022", VSR, tmp_path / "vsr")
    relations = {pair.row["relation"] for pair in vsr.load(folder).pairs}
    assert relations <= vsr.CATEGORY.keys()


def test_valse_keeps_what_two_annotators_accept(shared: Path, tmp_path: Path) -> None:
    benchmark = valse.load(linked(shared / "data/benchmarks/valse", VALSE, tmp_path / "valse"))
    assert len(benchmark.examples) == 7702
    assert len(benchmark.dropped) == 2 * (8782 - 7702)


def test_sugarcrepe_reads_all_seven_files(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared / "data/benchmarks/sugarcrepe", SUGARCREPE, tmp_path / "sugarcrepe")
    benchmark = sugarcrepe.load(folder)
    assert len(benchmark.examples) == 7511
    assert len({pair.row["piece"] for pair in benchmark.pairs}) == 7


def test_folder_of_several_benchmarks_gives_each_its_own_files(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared / "data/benchmarks/coco_cc_slices", COCO_CC_SLICES, tmp_path / "slices")
    splits = {pair.row["split"] for pair in vsr.load(folder).pairs}
    assert splits == {"random_dev", "random_train", "zeroshot_test", "zeroshot_train"}
    assert {p.row["instrument"] for p in valse.load(folder).pairs} == {"foil-it", "plurals", "relations"}
    assert len({p.row["piece"] for p in sugarcrepe.load(folder).pairs}) == 7


def test_coco_2014_names_are_found_in_a_2017_folder(shared: Path) -> None:
    images = shared / "data/coco_cc/images"
    found = find_image(images, "COCO_val2014_000000551780.jpg")
    assert found == images / "000000551780.jpg"


def test_an_id_without_suffix_is_found_in_a_subfolder(tmp_path: Path) -> None:
    (tmp_path / "VG_100K").mkdir()
    (tmp_path / "VG_100K/77.jpg").touch()
    assert find_image(tmp_path, "77") == tmp_path / "VG_100K/77.jpg"
    assert find_image(tmp_path, "7") is None


def test_svo_reads_csv_and_jsonl_alike(tmp_path: Path) -> None:
    (tmp_path / "svo.csv").write_text(
        f'{SVO_HEADER}\nA man runs.,"man,run,road","man,sit,road",u,v,11,12,False,True,False\n'
    )
    row = {"svo_index": 0, "caption": "A man runs.", "pos_image": "11", "neg_image": "12"}
    flags = {"subj_neg": False, "verb_neg": True, "obj_neg": False}
    triplets = {"pos_triplet": "man,run,road", "neg_triplet": "man,sit,road"}
    official, listed = (
        svo.load(tmp_path / "svo.csv"),
        svo.load(jsonl(tmp_path / "svo.jsonl", [{**row, **triplets, **flags}])),
    )
    assert official == listed
    assert [(p.image, p.row["label"]) for p in official.pairs] == [("11", "0_p"), ("12", "0_n")]


# ---- metrics ---------------------------------------------------------------------------------------------


def test_valse_tie_is_a_loss_and_the_average_is_micro() -> None:
    rows = [
        {"label": f"{i}_{ending}", "instrument": name}
        for i, name in enumerate(("existence", "plurals", "plurals"))
        for ending in "cf"
    ]
    found = valse.metrics(scored(rows, [0.9, 0.1, 0.5, 0.5, 0.6, 0.7]))
    assert found["overall"] == pytest.approx(100 / 3)
    assert (found["existence"], found["plurals"], found["macro_over_instruments"]) == (100, 0, 50)
    assert (found["p_c"], found["p_f"]) == (100, pytest.approx(100 / 3))


def test_svo_bucket_is_subject_before_verb_before_object() -> None:
    flags = {"subj_neg": False, "verb_neg": True, "obj_neg": True}
    assert svo.bucket({**flags, "subj_neg": True}, "here") == "subj"
    assert svo.bucket(flags, "here") == "verb"
    with pytest.raises(UserError, match="none of"):
        svo.bucket(dict.fromkeys(flags, False), "here")


def test_svo_micro_average_and_buckets() -> None:
    def row(i: int, bucket: str, ending: str) -> dict:
        return {"label": f"{i}_{ending}", **{field: name == bucket for name, field in svo.FLAGS.items()}}

    rows = [row(i, b, e) for i, b in enumerate(("subj", "verb", "verb", "obj")) for e in "pn"]
    found = svo.metrics(scored(rows, [0.9, 0.1, 0.9, 0.1, 0.2, 0.2, 0.1, 0.9]))
    assert (found["overall"], found["subj"], found["verb"], found["obj"]) == (50, 100, 50, 0)


def test_winoground_scores_per_tag() -> None:
    tags = ("Object", "Object", "Relation")
    rows = [
        {"label": f"{i}_{cell}", "collapsed_tag": tag}
        for i, tag in enumerate(tags)
        for cell in winoground.CELLS
    ]
    quads = [0.9, 0.1, 0.2, 0.8], [0.9, 0.1, 0.95, 0.97], [0.9, 0.92, 0.1, 0.95]
    found = winoground.metrics(scored(rows, [score for quad in quads for score in quad]))
    assert found["Object"] == {"text": 50, "image": 100, "group": 50, "n": 2}
    assert found["Relation"] == {"text": 100, "image": 0, "group": 0, "n": 1}
    assert found["overall"] == pytest.approx(100 / 3)


def test_winoground_tags_come_from_the_annotations(tmp_path: Path) -> None:
    texts = {"caption_0": "a", "caption_1": "b", "image_0": "i", "image_1": "j"}
    tagged = [{"id": i, **texts, "collapsed_tag": tag} for i, tag in enumerate(("Object", "Both"))]
    lines = [{"label": f"{i}_{cell}", "score": 0.5} for i in range(2) for cell in winoground.CELLS]
    scores = jsonl(tmp_path / "scores.jsonl", lines)
    found = rescore("winoground", scores, jsonl(tmp_path / "examples.jsonl", tagged))
    assert (found["Object"]["n"], found["Both"]["n"], found["n_pairs"]) == (1, 1, 8)
    assert "Object" not in rescore("winoground", scores)


def test_valse_pieces_join_their_instruments() -> None:
    rows = [
        {"label": f"{i}_{ending}", "instrument": name}
        for i, name in enumerate(("counting-hard", "counting-small-quant", "existence"))
        for ending in "cf"
    ]
    found = valse.metrics(scored(rows, [0.9, 0.1, 0.5, 0.5, 0.6, 0.1]))
    assert found["by_piece"] == {"counting": 50, "existence": 100}
    assert found["macro_over_pieces"] == 75


def test_other_programs_spellings_of_a_label_are_read(tmp_path: Path) -> None:
    labels = (True, 1.0, 1, False)
    rows = [{"label": label, "score": 0.9, "relation": "on", "id": i} for i, label in enumerate(labels)]
    assert rescore("vsr", jsonl(tmp_path / "scores.jsonl", rows))["overall"] == 75


def test_svo_index_must_be_unique(tmp_path: Path) -> None:
    flags = {"subj_neg": False, "verb_neg": True, "obj_neg": False}
    row = {"svo_index": 4, "caption": "a", "pos_image": "1", "neg_image": "2", **flags}
    with pytest.raises(UserError, match="svo_index: 4 occurs 2 times"):
        svo.load(jsonl(tmp_path / "svo.jsonl", [row, row]))


def test_sugarcrepe_figures_per_file_and_kind_of_edit() -> None:
    rows = [{"label": f"0_{e}", "piece": piece} for piece in ("add_att", "add_obj", "swap_obj") for e in "cn"]
    found = sugarcrepe.metrics(scored(rows, [0.9, 0.1, 0.1, 0.9, 0.5, 0.5]))
    assert found["macro_by_edit"] == {"add": 50, "swap": 0}
    assert found["overall"] == pytest.approx(100 / 3)


def test_vsr_calibration_mends_a_bias_towards_false() -> None:
    rows = [
        {"label": i % 2, "relation": "on", "id": i, "split": split}
        for split in ("dev", "test")
        for i in range(10)
    ]
    found = vsr.metrics(scored(rows, [0.1 + 0.2 * row["label"] + 0.001 * row["id"] for row in rows]))
    assert found["overall"] == 50
    assert found["calibrated_at_median"] == found["test_at_dev_threshold"] == 100
    assert found["called_true"] == 0


def test_vsr_counts_unlisted_relations_and_says_so() -> None:
    rows = [{"label": 1, "relation": "chasing", "id": 0}, {"label": 1, "relation": "on", "id": 1}]
    found = vsr.metrics(scored(rows, [0.9, 0.9]))
    assert found["relations_counted_as_unallocated"] == {"chasing": 1}
    assert found["counts"] == {"topological": 1, "unallocated": 1}


def test_held_out_combinations_have_their_own_figure() -> None:
    rows = [{"label": 1, "relation": "on", "id": i, "held_out": i == 0} for i in range(4)]
    found = vsr.metrics(scored(rows, [0.1, 0.9, 0.9, 0.9]))
    assert (found["overall"], found["held_out"]["overall"], found["held_out"]["n"]) == (75, 0, 1)


# ---- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "file"), [("vsr", "valse/plurals.json"), ("valse", "sugarcrepe/add_att.json")]
)
def test_file_of_another_task_is_refused(shared: Path, task: str, file: str) -> None:
    with pytest.raises(UserError, match=file.rpartition("/")[-1]):
        PAIR_TASKS[task].load(shared / "data/benchmarks" / file)


def test_duplicate_keys_in_json_are_refused(tmp_path: Path) -> None:
    example = '"7": {"filename": "a.jpg", "caption": "a", "negative_caption": "b"}'
    (tmp_path / "add_att.json").write_text(f"{{{example}, {example}}}")
    with pytest.raises(UserError, match="7: occurs twice"):
        sugarcrepe.load(tmp_path / "add_att.json")


def test_vsr_label_must_be_0_or_1(tmp_path: Path) -> None:
    row = {"image": "a.jpg", "caption": "a", "label": 2, "relation": "on"}
    with pytest.raises(UserError, match="row 0: label"):
        vsr.load(jsonl(tmp_path / "dev.jsonl", [row]))


def vsr_rows() -> list[dict]:
    return [{"label": i % 2, "score": 0.5, "relation": "on", "id": i} for i in range(4)]


BREAKAGES: dict[str, tuple[Callable[[list[dict]], object], str]] = {
    "NaN": (lambda rows: rows[2].update(score=float("nan")), "line 3: score: nan"),
    "infinite": (lambda rows: rows[2].update(score=float("inf")), "line 3: score: inf"),
    "not a number": (lambda rows: rows[1].update(score="high"), "line 2: score"),
    "twice": (lambda rows: rows.append(dict(rows[0])), "line 5: 0: already on line 1"),
    "empty": (lambda rows: rows.clear(), "no scores"),
    "no relation": (lambda rows: rows[0].pop("relation"), "relation: absent"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_bad_scores_are_refused(tmp_path: Path, name: str) -> None:
    breakage, message = BREAKAGES[name]
    rows = vsr_rows()
    breakage(rows)
    with pytest.raises(UserError, match=message):
        rescore("vsr", jsonl(tmp_path / "scores.jsonl", rows))


@pytest.mark.parametrize("task", ["vsr", "svo", "winoground", "sugarcrepe"])
def test_scores_of_another_task_are_refused(shared: Path, task: str) -> None:
    with pytest.raises(UserError, match=r"label: '0_[cf]' .*another task"):
        rescore(task, shared / "reference/outputs/valse_albef_4m.jsonl")


def annotated(tmp_path: Path) -> Path:
    rows = [{"image": "a.jpg", "caption": "a", "label": i % 2, "relation": "on"} for i in range(4)]
    return jsonl(tmp_path / "dev.jsonl", rows)


def test_annotations_supply_what_scores_lack(tmp_path: Path) -> None:
    bare = [{"id": row["id"], "score": row["score"]} for row in vsr_rows()]
    found = rescore("vsr", jsonl(tmp_path / "scores.jsonl", bare), annotated(tmp_path))
    assert (found["overall"], found["n"]) == (50, 4)


def test_scores_of_other_annotations_are_refused(tmp_path: Path) -> None:
    rows = vsr_rows()
    rows[3]["relation"] = "under"
    with pytest.raises(UserError, match="relation: 'under', the annotations say 'on'"):
        rescore("vsr", jsonl(tmp_path / "scores.jsonl", rows), annotated(tmp_path))


def test_missing_scores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 annotated pairs have no score"):
        rescore("vsr", jsonl(tmp_path / "scores.jsonl", vsr_rows()[:3]), annotated(tmp_path))


def test_half_of_a_pair_is_refused(tmp_path: Path) -> None:
    rows = [{"label": "0_c", "instrument": "plurals", "score": 0.5}]
    with pytest.raises(UserError, match="0_f of plurals: absent"):
        rescore("valse", jsonl(tmp_path / "scores.jsonl", rows))
