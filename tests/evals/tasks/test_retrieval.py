"""Galleries from three file formats; candidates and recalls against brute force."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from relvlm.errors import UserError
from relvlm.evals.tasks import retrieval


def found(scores_IX: np.ndarray, image_of: list[int], k: int, similarity: np.ndarray) -> retrieval.Candidates:
    image, text, tr, ir = retrieval.candidates(torch.from_numpy(similarity), k)
    i, x = image.numpy(), text.numpy()
    return retrieval.Candidates(i, x, scores_IX[i, x], np.array(image_of)[x] == i, tr.numpy(), ir.numpy())


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


@pytest.mark.parametrize("k", [12, 25])
@pytest.mark.parametrize("seed", range(3))
def test_recalls_equal_the_official_matrix_of_minus_100(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image_of = [i // 2 for i in range(60)]
    truth = np.arange(30)[:, None] == np.array(image_of)[None]
    similarity = rng.normal(size=(30, 60)) + truth
    scores = rng.normal(size=(30, 60)) + 2 * truth
    figures = retrieval.metrics(found(scores, image_of, k, similarity))
    wanted = brute(scores, image_of, k, similarity)
    assert {name: figures[name] for name in wanted} == pytest.approx(wanted)
    assert figures["overall"] == pytest.approx(np.mean(list(wanted.values())))


def candidate(**changes: object) -> dict:
    return {"image": 0, "text": 0, "score": 1.0, "label": 1, "tr": 1, "ir": 1} | changes


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([candidate(), candidate()], "image 0, text 0: scored 2 times"),
        ([candidate(), candidate(text=1, score=float("nan"))], "line 2: score: nan"),
        ([candidate(image="a.jpg")], r"line 1: image: 'a\.jpg' is no whole number"),
        ([{"label": 1, "score": 0.5, "relation": "on"}], "line 1: image: absent"),
        ([], "no scores"),
    ],
)
def test_bad_retrieval_scores_are_refused(rows: list[dict], message: str) -> None:
    with pytest.raises(UserError, match=message):
        retrieval.from_rows(rows, "scores.jsonl")


def test_a_match_that_cosine_leaves_out_is_not_found() -> None:
    similarity = np.array([[0.0, 1.0], [1.0, 0.0]])
    figures = retrieval.metrics(found(np.eye(2) * 9, [0, 1], 1, similarity))
    assert figures["TR@10"] == figures["IR@10"] == 0


def test_constant_scores_find_nothing() -> None:
    figures = retrieval.metrics(found(np.zeros((20, 20)), list(range(20)), 20, np.zeros((20, 20))))
    assert figures["TR@10"] == figures["IR@10"] == 0


def test_chance_of_random_scores_is_as_stated() -> None:
    rng = np.random.default_rng(0)
    image_of = [i // 5 for i in range(2000)]
    similarity = rng.normal(size=(400, 2000))
    figures = retrieval.metrics(found(rng.normal(size=similarity.shape), image_of, 2000, similarity))
    assert figures["chance"]["TR@10"] == pytest.approx(100 * (1 - (1 - 5 / 2000) ** 10), abs=0.1)
    assert figures["TR@10"] == pytest.approx(figures["chance"]["TR@10"], abs=2.5)
    assert figures["IR@10"] == pytest.approx(figures["chance"]["IR@10"], abs=1.5)


def test_karpathy_split_and_folder_names(tmp_path: Path) -> None:
    def record(name: str, split: str, texts: list[str]) -> dict:
        return {
            "filepath": "val2014",
            "filename": name,
            "split": split,
            "sentences": [{"raw": t} for t in texts],
        }

    images = [
        record("a.jpg", "val", ["x"]),
        record("b.jpg", "test", ["y", "z"]),
        record("c.jpg", "test", ["w"]),
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    gallery = retrieval.load("coco", tmp_path)
    assert gallery == retrieval.Gallery(("val2014/b.jpg", "val2014/c.jpg"), ("y", "z", "w"), (0, 0, 1))
    assert gallery.without(["val2014/b.jpg"]) == retrieval.Gallery(("val2014/c.jpg",), ("w",), (0,))
    with pytest.raises(UserError, match="split 'dev'"):
        retrieval.load("coco", tmp_path, "dev")


def test_albef_list(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text(json.dumps([{"image": "a.jpg", "caption": ["x", "y"]}]))
    assert retrieval.load("flickr30k", tmp_path / "test.json") == retrieval.Gallery(
        ("a.jpg",), ("x", "y"), (0, 0)
    )


def paragraphs(folder: Path, ids: list[int], split: list[int]) -> Path:
    rows = [{"image_id": i, "url": "", "paragraph": f"text {i}"} for i in ids]
    (folder / "paragraphs_v1.json").write_text(json.dumps(rows))
    (folder / "test_split.json").write_text(json.dumps(split))
    return folder


def test_paragraphs_follow_the_split_file(tmp_path: Path) -> None:
    gallery = retrieval.load("paragraphs", paragraphs(tmp_path, [1, 2, 3], [3, 1]))
    assert gallery == retrieval.Gallery(("3", "1"), ("text 1", "text 3"), (1, 0))


def test_split_without_its_paragraphs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="image_id 9"):
        retrieval.load("paragraphs", paragraphs(tmp_path, [1], [1, 9]))


def test_image_listed_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps([{"image": "a.jpg", "caption": "x"}] * 2))
    with pytest.raises(UserError, match=r"a\.jpg: occurs 2 times"):
        retrieval.load("coco", tmp_path / "t.json")
