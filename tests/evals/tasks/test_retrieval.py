"""Recalls against brute force, outcomes, cards, columns, and the scoring of a gallery by toy models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.redness import Nearness, WithFeatures, tone

from relvlm.errors import UserError
from relvlm.evals.figures.shares import wilson
from relvlm.evals.scoring.scorer import Scorer
from relvlm.evals.tasks import retrieval
from relvlm.evals.tasks.candidates import Candidates, nearest
from relvlm.evals.tasks.retrieval import RetrievalTask
from relvlm.evals.tasks.task import Selection

TASK = RetrievalTask("toy", 3, ("toy.json", "official.json"), "Toy", ("TR@1", "IR@5"), 7, coarse=True)


def found(scores_IX: np.ndarray, image_of: list[int], k: int, similarity: np.ndarray) -> Candidates:
    image, text, tr, ir = nearest(torch.from_numpy(similarity), k)
    i, x = image.numpy(), text.numpy()
    return Candidates(i, x, scores_IX[i, x], np.array(image_of)[x] == i, tr.numpy(), ir.numpy())


def brute(scores_IX: np.ndarray, image_of: list[int], k: int, similarity: np.ndarray) -> dict[str, float]:
    """The official evaluation: a matrix of -100 filled in at the k nearest, then ranks by sorting."""
    images, texts = scores_IX.shape
    tr, ir = np.full((images, texts), -100.0), np.full((texts, images), -100.0)
    for i in range(images):
        top = np.argsort(-similarity[i])[:k]
        tr[i, top] = scores_IX[i, top]
    for x in range(texts):
        top = np.argsort(-similarity[:, x])[:k]
        ir[x, top] = scores_IX[top, x]
    result = {}
    for r in (1, 5, 10):
        hits = [any(image_of[x] == i for x in np.argsort(-tr[i])[:r]) for i in range(images)]
        result[f"TR@{r}"] = 100 * np.mean(hits)
        result[f"IR@{r}"] = 100 * np.mean([image_of[x] in np.argsort(-ir[x])[:r] for x in range(texts)])
    return result


def random_case(seed: int) -> tuple[np.ndarray, list[int], np.ndarray]:
    rng = np.random.default_rng(seed)
    image_of = [i // 2 for i in range(60)]
    truth = np.arange(30)[:, None] == np.array(image_of)[None]
    return rng.normal(size=(30, 60)) + 2 * truth, image_of, rng.normal(size=(30, 60)) + truth


@pytest.mark.parametrize("k", [12, 25])
@pytest.mark.parametrize("seed", range(3))
def test_recalls_equal_the_official_matrix_of_minus_100(k: int, seed: int) -> None:
    scores, image_of, similarity = random_case(seed)
    candidates = found(scores, image_of, k, similarity)
    figures, wanted = retrieval.figures(candidates), brute(scores, image_of, k, similarity)
    assert {name: figures[name] for name in wanted} == pytest.approx(wanted)
    assert figures["overall"] == pytest.approx(np.mean(list(wanted.values())))
    hits = round(wanted["IR@5"] * 60 / 100)
    assert figures["intervals95"]["IR@5"] == pytest.approx(list(wilson(hits, 60)))
    assert (figures["n_images"], figures["n_texts"]) == (30, 60)
    assert figures["n_pairs"] == len(candidates.score)
    outcomes = {name: values[0] for name, values in retrieval.outcomes(candidates).figures().items()}
    assert outcomes == pytest.approx({name: figures[name] for name in outcomes})
    assert set(outcomes) == {*wanted, "overall"}


def test_a_unit_is_an_image_with_all_of_its_texts() -> None:
    scores = np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.4]])
    outcomes = retrieval.outcomes(found(scores, [0, 0, 1], 3, np.zeros((2, 3))))
    assert (outcomes.units, outcomes.names[:2]) == (("0", "1"), ("TR@1", "IR@1"))
    assert outcomes.right[:, :2].tolist() == [
        [1, 1],
        [1, 0],
    ]  # text 1 is nearer to image 1, text 2 to image 0
    assert outcomes.counted[:, :2].tolist() == [[1, 2], [1, 1]]


def test_a_text_that_was_not_scored_with_its_image_is_in_the_unit_of_it_all_the_same() -> None:
    """All of them in one would rise and fall together, and be in one of two models alone."""
    for seed in range(2):
        scores, image_of, similarity = random_case(seed)
        candidates = found(scores, image_of, 3, similarity)
        outcomes = retrieval.outcomes(candidates, image_of)
        assert outcomes.units == tuple(map(str, range(30)))
        assert (outcomes.counted == [[1, 2] * 3] * 30).all()
        assert outcomes.figures()["IR@1"] == pytest.approx(brute(scores, image_of, 3, similarity)["IR@1"])
        unknown = set(range(60)) - set(candidates.text[candidates.match].tolist())
        alone = retrieval.outcomes(candidates)
        assert unknown and set(alone.units) - set(outcomes.units) == {f"text {text}" for text in unknown}
        assert alone.figures()["IR@1"] == pytest.approx(outcomes.figures()["IR@1"])


def test_an_image_and_a_text_without_candidates_are_not_counted() -> None:
    whole = found(np.eye(2), [0, 1], 2, np.zeros((2, 2)))
    tr, ir = whole.image == 0, whole.text == 1
    part = Candidates(whole.image, whole.text, whole.score, whole.match, tr, ir)
    outcomes = retrieval.outcomes(part)
    places = [outcomes.names.index(name) for name in ("TR@1", "IR@1")]
    assert (outcomes.units, outcomes.counted[:, places].tolist()) == (("0", "1"), [[1, 0], [0, 1]])


def test_a_match_that_cosine_leaves_out_is_not_found() -> None:
    figures = retrieval.figures(found(np.eye(2) * 9, [0, 1], 1, np.array([[0.0, 1.0], [1.0, 0.0]])))
    assert figures["TR@10"] == figures["IR@10"] == 0


def test_constant_scores_find_nothing() -> None:
    figures = retrieval.figures(found(np.zeros((20, 20)), list(range(20)), 20, np.zeros((20, 20))))
    assert figures["TR@10"] == figures["IR@10"] == 0


@pytest.mark.parametrize(
    ("r", "n", "right", "chance"),
    [
        (1, 4, 1, 25),
        (2, 4, 1, 50),
        (4, 4, 1, 100),
        (9, 4, 1, 100),
        (1, 4, 2, 50),
        (2, 4, 2, 100 * (1 - 1 / 6)),
    ],
)
def test_chance_is_that_of_a_random_order(r: int, n: int, right: float, chance: float) -> None:
    assert retrieval._chance(r, n, right) == pytest.approx(chance)


def test_chance_of_texts_counts_all_of_an_image() -> None:
    figures = retrieval.figures(found(np.zeros((5, 20)), [i // 4 for i in range(20)], 20, np.zeros((5, 20))))
    assert figures["chance"]["TR@1"] == pytest.approx(100 * 4 / 20)
    assert figures["chance"]["IR@1"] == pytest.approx(100 / 5)
    assert figures["chance"]["IR@10"] == 100


@pytest.mark.parametrize(("wrong", "right"), [(0.4999, True), (0.5, False)])
def test_a_card_shows_the_nearest_texts_and_which_is_its_own(wrong: float, right: bool) -> None:
    scores = np.array([[0.5, wrong], [0.1, 0.9]])
    first, second = retrieval.cards(found(scores, [0, 1], 2, scores), ["a.jpg", "b.jpg"], ["a dog", "a box"])
    assert (first.right, first.images, first.piece, first.what) == (
        right,
        ("a.jpg",),
        "TR@1",
        "text of an image",
    )
    own, other = ("a dog", 0.5), ("a box", wrong)
    in_order = (("first, its own:", *own), ("rank 2:", *other)), (("first:", *other), ("rank 2, its own:", *own))
    assert first.lines == in_order[not right]
    assert second.lines == (("first, its own:", "a box", 0.9), ("rank 2:", "a dog", 0.1)) and second.right


@pytest.mark.parametrize(("own", "shown"), [(0.25, ["rank 3, its own:"]), (0.15, ["rank 3:", "rank 4, its own:"])])
def test_an_own_text_beyond_the_nearest_is_shown_with_its_rank(own: float, shown: list[str]) -> None:
    scores = np.array([[own, 0.4, 0.3, 0.2, 0.1]])
    (card,) = retrieval.cards(found(scores, [0, 1, 2, 3, 4], 5, scores), ["a"], list("vwxyz"))
    assert [line[0] for line in card.lines] == ["first:", "rank 2:", *shown]
    assert not card.right and card.lines[-1][1:] == ("v", own)


def test_an_equal_text_of_another_image_is_wrong_and_the_card_says_so() -> None:
    scores = np.array([[0.5, 0.5], [0.1, 0.9]])
    first, second = retrieval.cards(found(scores, [0, 1], 2, scores), ["a.jpg", "b.jpg"], ["a dog", "a dog"])
    assert [line[0] for line in first.lines] == [
        "first (the same text, of another image: wrong by the protocol):",
        "rank 2, its own:",
    ]
    assert (first.right, second.right, second.lines[0][0]) == (False, True, "first, its own:")


def test_chance_is_that_of_as_many_candidates_as_are_scored() -> None:
    similarity = np.zeros((5, 20))
    few, all_ = (retrieval.figures(found(similarity, [i // 4 for i in range(20)], k, similarity)) for k in (2, 20))
    assert few["chance"]["IR@5"] == few["chance"]["IR@10"] == pytest.approx(40)
    assert (all_["chance"]["IR@1"], all_["chance"]["IR@5"]) == (pytest.approx(20), 100)
    assert few["chance"]["TR@1"] == all_["chance"]["TR@1"] == pytest.approx(20)


def test_an_own_text_that_is_no_candidate_is_not_shown() -> None:
    similarity = np.array([[0.0, 1.0], [1.0, 0.0]])
    first, _ = retrieval.cards(found(similarity, [0, 1], 1, similarity), ["a", "b"], ["x", "y"])
    assert (first.lines, first.right) == ((("first:", "y", 1.0),), False)


def test_columns_of_test_and_of_dev() -> None:
    shown = [(c.title, c.place, c.axis, c.over_steps) for c in TASK.columns]
    assert shown == [
        ("Toy TR@1", 7, "coarse", True),
        ("Toy IR@5", 7, None, False),
        ("Toy dev TR@1", 107, None, True),
        ("Toy dev IR@5", 107, None, False),
    ]
    plain = RetrievalTask("toy", 3, ("toy.json",), "Toy", ("TR@1",), 7)
    assert plain.columns[0].axis is None


@pytest.mark.parametrize(("split", "title"), [("test", "Toy"), ("val", "Toy dev")])
def test_cells_are_those_of_the_split(split: str, title: str) -> None:
    figures = retrieval.figures(found(np.zeros((5, 20)), [i // 4 for i in range(20)], 20, np.zeros((5, 20))))
    cells = TASK.cells({**figures, "split": split})
    assert list(cells) == [f"{title} TR@1", f"{title} IR@5"]
    first, second = cells.values()
    assert (first.n, second.n, first.figure, second.figure) == (5, 20, "TR@1", "IR@5")
    assert (first.value, first.chance) == (figures["TR@1"], figures["chance"]["TR@1"])
    assert second.interval == tuple(figures["intervals95"]["IR@5"])


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    records = []
    for i in range(6):
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
        captions = [f"{tone(40 * i) + d:.6f} of {i}" for d in (0.01, 0.02)[: 1 + i % 2]]
        split = "test" if i < 5 else "val"
        records.append({"filename": f"{i}.png", "split": split, "sentences": [{"raw": c} for c in captions]})
    (tmp_path / "official.json").write_text(json.dumps({"images": records}))
    return tmp_path


def score(folder: Path, model: Nearness, **selection: object):
    chosen = Selection(**selection)  # type: ignore[arg-type]
    return TASK.score(Scorer(model), folder, folder, chosen)


def test_without_features_every_pair_is_scored(folder: Path) -> None:
    model = Nearness()
    scored = score(folder, model)
    assert model.pairs == scored.figures["n_pairs"] == 5 * 7
    assert (scored.figures["TR@1"], scored.figures["IR@1"]) == (100, 100)
    assert (scored.figures["score"], scored.figures["k"], scored.figures["split"]) == (
        "match logit",
        3,
        "test",
    )
    assert score(folder, Nearness(logits=False)).figures["score"] == "similarity"


@pytest.mark.parametrize(("k", "each"), [(0, 3), (1, 1), (2, 2)])
def test_with_features_the_k_nearest_are_scored(folder: Path, k: int, each: int) -> None:
    scored = score(folder, WithFeatures(), k=k)
    rows = [json.loads(line) for line in scored.lines]
    assert sum(row["tr"] for row in rows) == 5 * each
    assert sum(row["ir"] for row in rows) == 7 * each
    assert scored.figures["k"] == each and scored.figures["IR@1"] == 100


def test_its_files_give_its_figures_and_cards_again(folder: Path, tmp_path: Path) -> None:
    scored = score(folder, WithFeatures())
    out = tmp_path / "out"
    out.mkdir()
    (out / "scores.jsonl").write_text("\n".join(scored.lines))
    (out / "gallery.json").write_text(json.dumps(scored.files["gallery.json"]))
    again = TASK.rescore(out / "scores.jsonl", folder)
    assert again == {name: scored.figures[name] for name in again} and again["rule"] == TASK.rule
    assert TASK.rescore(out / "scores.jsonl", None) == again
    assert TASK.outcomes(out / "scores.jsonl").units == scored.outcomes.units
    cards = TASK.cards(out)
    assert [card.images for card in cards] == [(f"{i}.png",) for i in range(5)]
    assert all(card.right and card.lines[0][1].endswith(f"of {i}") for i, card in enumerate(cards))
    with pytest.raises(UserError, match="not the 1 of the annotations"):
        (folder / "toy.json").write_text(json.dumps([{"image": "a", "caption": "x"}]))
        TASK.rescore(out / "scores.jsonl", folder)


def test_its_outcomes_are_those_of_images_however_few_are_scored(folder: Path) -> None:
    model = WithFeatures()
    model.image_features = lambda rows: -WithFeatures.image_features(model, rows)  # type: ignore[method-assign]
    scored = score(folder, model, k=1)
    assert scored.figures["IR@10"] < 100
    assert scored.outcomes.units == tuple(map(str, range(5)))
    assert scored.outcomes.counted[:, scored.outcomes.names.index("IR@1")].sum() == 7


def test_split_and_limit_choose_images(folder: Path) -> None:
    assert TASK.splits(folder) == {"test", "val"}
    assert score(folder, Nearness(), split="val").figures["n_images"] == 1
    assert score(folder, Nearness(), limit=2).figures["n_texts"] == 3


def test_overlapping_images_are_counted_and_left_out_of_a_second_set_of_figures(folder: Path) -> None:
    found = score(folder, WithFeatures(), overlap=("3", "4.png")).figures
    assert (found["n_images"], found["without_overlap"]["n_images"]) == (5, 3)
    for names, overlapping in (("3", "4.png"), 2), (("9",), 0), (tuple(map(str, range(5))), 5):
        found = score(folder, WithFeatures(), overlap=names).figures
        assert found["overlapping_images"] == overlapping
        assert ("without_overlap" in found) == (0 < overlapping < 5)
    assert "overlapping_images" not in score(folder, WithFeatures()).figures


def test_missing_images_are_refused_or_left_out(folder: Path) -> None:
    (folder / "1.png").unlink()
    with pytest.raises(UserError, match=r"1 images missing: 1\.png"):
        score(folder, Nearness())
    found = score(folder, Nearness(), available=True).figures
    assert (found["n_images"], found["n_texts"], found["missing_images"]) == (4, 5, ["1.png"])


def test_a_diverged_model_is_refused(folder: Path) -> None:
    model = Nearness()
    model.match = lambda images, texts, image, text: torch.full((len(image), 2), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(UserError, match="not finite"):
        score(folder, model)


def test_a_folder_without_its_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no toy\.json in this folder"):
        TASK.load(tmp_path)
