"""SugarCrepe++: image to text by score and by cosine, texts alone; its files, and real photos."""

import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.evaluate import evaluate, rescore
from relvlm.evals.scoring.scorer import Scorer
from relvlm.evals.tasks import sugarcrepe_pp
from relvlm.evals.tasks.sugarcrepe_pp import above, nearest

FILES = {"replace_att": 788, "replace_obj": 1652, "replace_rel": 1406, "swap_att": 666, "swap_obj": 245}
ENDINGS = ("c1", "c2", "n")


def rows(piece: str, scores: tuple[float, float, float], number: int = 0, **fields: tuple) -> list[dict]:
    return [
        {"label": f"{number}_{e}", "piece": piece, "score": scores[i], **{k: v[i] for k, v in fields.items()}}
        for i, e in enumerate(ENDINGS)
    ]


@pytest.mark.parametrize(
    ("scores", "right"),
    [
        ((0.7, 0.8, 0.6999), True),
        ((0.7, 0.8, 0.7), False),  # a tie with one caption
        ((0.8, 0.7, 0.7), False),
        ((0.8, 0.7, 0.75), False),
    ],
)
def test_both_captions_must_score_strictly_above_the_negative_one(scores: tuple, right: bool) -> None:
    assert above(*scores) is right
    (found,) = sugarcrepe_pp.verdicts(rows("swap_obj", scores)[::-1])
    assert found.marks == {"overall": right, "swap_obj": right}
    assert (found.unit, [kind for kind, _, _ in found.card.lines]) == (
        "swap_obj 0",
        ["caption:", "caption:", "foil:"],
    )


@pytest.mark.parametrize(
    ("cosines", "right"),  # of the captions; of the second and the negative one; of the negative one and the first
    [((0.8, 0.79, 0.1), True), ((0.8, 0.8, 0.1), False), ((0.8, 0.1, 0.8), False), ((0.8, 0.1, 0.9), False)],
)
def test_the_captions_must_be_strictly_nearer_to_each_other(cosines: tuple, right: bool) -> None:
    assert nearest(*cosines) is right
    held = rows("swap_obj", (1, 1, 0), cosine=(0.1, 0.2, 0.3), text_cosine=cosines)
    (found,) = sugarcrepe_pp.verdicts(held)
    assert (found.marks["overall"], found.marks["cosine/overall"], found.marks["text_only/overall"]) == (
        *(True, False),
        right,
    )


def test_figures_per_file_kind_of_edit_and_way() -> None:
    fine, poor = {"cosine": (2, 2, 1), "text_cosine": (2, 1, 1)}, {"cosine": (1, 2, 1), "text_cosine": (1, 1, 1)}
    held = [*rows("replace_att", (2, 2, 1), **fine), *rows("replace_obj", (1, 1, 2), **fine)]
    held += [*rows("swap_obj", (2, 2, 1), **poor), *rows("swap_obj", (1, 1, 2), 1, **fine)]
    found = sugarcrepe_pp.TASK.metrics(held)
    assert (found["overall"], found["macro_by_edit"]) == (50, {"replace": 50, "swap": 50})
    assert (found["cosine"]["overall"], found["cosine"]["macro_by_edit"]) == (75, {"replace": 100, "swap": 50})
    assert (found["text_only"]["swap_obj"], found["text_only"]["macro_over_files"]) == (50, pytest.approx(250 / 3))
    assert found["chance"] == pytest.approx(100 / 3)
    plain = sugarcrepe_pp.TASK.metrics(rows("swap_obj", (2, 2, 1)))
    assert "cosine" not in plain and "text_only" not in plain


@pytest.mark.parametrize("kept", [slice(0, 2), slice(1, 3)])
def test_all_three_must_be_scored(kept: slice) -> None:
    with pytest.raises(UserError, match=r"0_(n|c1) of swap_obj: absent"):
        sugarcrepe_pp.verdicts(rows("swap_obj", (1, 1, 0))[kept])


def test_published_files_are_read_whole_and_their_two_hopeless_rows_are_counted(shared: Path) -> None:
    held = []
    for piece, count in FILES.items():
        found = sugarcrepe_pp.load(shared / f"data/benchmarks/sugarcrepe_pp/{piece}.json")
        assert len(found.examples) == count
        held += [{**p.row, "score": float(p.row["label"][-1] != "n"), "text": p.text} for p in found.pairs]
    figures = sugarcrepe_pp.TASK.metrics(held)
    assert (figures["n"], figures["negative_equals_caption"]) == (4757, 2)


def test_a_row_whose_negative_is_a_caption_is_lost_and_stays_in_what_is_counted(shared: Path) -> None:
    found = sugarcrepe_pp.load(shared / "data/benchmarks/sugarcrepe_pp/swap_obj.json")
    held = []
    for example in found.examples:  # a model scores equal texts equally; else this one is always right
        equal = example[2].text in (example[0].text, example[1].text)
        held += [{**p.row, "score": 0.5 if equal else float(i < 2), "text": p.text} for i, p in enumerate(example)]
    figures = sugarcrepe_pp.TASK.metrics(held)
    assert (figures["n"], figures["negative_equals_caption"]) == (245, 2)
    assert figures["overall"] == pytest.approx(100 * 243 / 245)
    hopeless = [e[0].row["label"] for e in found.examples if e[2].text in (e[0].text, e[1].text)]
    assert hopeless == ["2_c1", "8_c1"]


def test_real_photos_are_scored_and_their_scores_give_the_metrics_again(shared: Path, tmp_path: Path, model) -> None:
    for parameter in model.parameters():
        parameter.data *= 50 if parameter.dim() > 1 else 1  # so that texts differ visibly
    annotations = shared / "data/benchmarks/coco_cc_slices_pp"
    found = evaluate(model, model.tokenizer, "sugarcrepe_pp", annotations, shared / "data/coco_cc/images", tmp_path)
    assert (found["n"], found["n_pairs"]) == (97, 291)
    assert 0 <= found["cosine"]["overall"] <= 100 and 0 <= found["text_only"]["overall"] <= 100
    again = rescore("sugarcrepe_pp", tmp_path / "scores.jsonl", annotations)
    assert again == {name: found[name] for name in again}
    held = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    scorer = Scorer(model, model.tokenizer)
    text_3E = scorer.text_features([row["text"] for row in held[:3]])
    (image_E,) = scorer.image_features([shared / "data/coco_cc/images" / held[0]["image"]])
    assert [row["cosine"] for row in held[:3]] == pytest.approx((text_3E @ image_E).tolist(), abs=1e-6)
    following = (text_3E * text_3E.roll(-1, 0)).sum(1)  # first and second, second and negative, negative and first
    assert [row["text_cosine"] for row in held[:3]] == pytest.approx(following.tolist(), abs=1e-6)
    assert len({round(x, 4) for x in [1.0, *following.tolist()]}) == 4
