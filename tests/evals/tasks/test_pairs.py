"""A pair task scored by a toy model: what is loaded, limited, left out, judged and written."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from relvlm.errors import UserError
from relvlm.evals.figures.main_table import Cell, Column
from relvlm.evals.scoring.scorer import Scorer
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.pairs import Benchmark, Pair, PairTask
from relvlm.evals.tasks.task import Card, Selection
from relvlm.evals.tasks.verdict import Verdict


class Length:
    """Scores a pair by its text's length: a similarity, or a logit."""

    def __init__(self, probabilities: bool, says: bool | None = None) -> None:
        self.makes_probabilities = probabilities
        self.probabilities = probabilities if says is None else says

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels[:, :, 0, 0]

    def encode_text(self, texts: Sequence[str]) -> list[torch.Tensor]:
        return [torch.tensor([float(len(text))]) for text in texts]

    def match(self, images, texts, image, text) -> torch.Tensor:
        scores = torch.stack([texts[i][0] for i in text.tolist()]) - 3
        return torch.stack([torch.zeros_like(scores), scores], 1) if self.makes_probabilities else scores


def load(path: Path) -> Benchmark:
    """One example a line, `image text text`; those that begin with # are dropped."""
    examples, dropped = [], []
    for i, line in enumerate(path.read_text().splitlines()):
        image, *texts = line.split()
        fields = [{"label": f"{i}_{j}", "file": path.name if i < 2 else "other"} for j in range(len(texts))]
        if image.startswith("#"):
            dropped += fields
        else:
            examples.append(tuple(Pair(image, t, row) for t, row in zip(texts, fields, strict=True)))
    return Benchmark(tuple(examples), tuple(dropped))


def verdicts(rows: Sequence[dict]) -> list[Verdict]:
    found = []
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        won = first["score"] > second["score"]
        marks = {"overall": won, "at_half": first["score"] >= 0.5}
        found.append(Verdict(first["label"][0], (first, second), marks, Card((), (), won, "piece")))
    return found


def figures(judged: Sequence[Verdict]) -> dict:
    return {**verdict.accuracy(judged), "at_half": 1.0, "chance": 50.0}


def task(**changes: object) -> PairTask:
    fields: dict = {"key": ("label",), "label": r"\d+_[01]", "rule": "longer", "group": "file"}
    fields |= {"thresholded": ("at_half",), **changes}
    return PairTask("toy", load, verdicts, figures, (Column("Toy"),), **fields)


@pytest.fixture()
def annotations(tmp_path: Path) -> Path:
    for name in "ab":
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    (tmp_path / "toy.txt").write_text("a longest short\n# no no\nb s long\na longer long\n")
    return tmp_path / "toy.txt"


def score(annotations: Path, model: Length, selection: Selection | None = None, **changes: object):
    return task(**changes).score(Scorer(model), annotations, annotations.parent, selection or Selection())


def test_each_pair_is_scored_and_each_example_judged(annotations: Path) -> None:
    found = score(annotations, Length(True))
    rows = [json.loads(line) for line in found.lines]
    wanted = [
        torch.tensor(len(word) - 3.0).sigmoid().item() for word in ["longest", "short", "s", "long", "longer", "long"]
    ]
    assert [row.pop("score") for row in rows] == pytest.approx(wanted)
    assert rows[2] == {"label": "2_0", "file": "other", "image": "b", "text": "s"}
    assert found.figures["overall"] == pytest.approx(200 / 3)
    assert (found.figures["n_pairs"], found.figures["rule"], found.figures["texts_cut"]) == (6, "longer", 0)
    assert (found.figures["score"], found.figures["images_missing"]) == ("match probability", 0)
    assert found.outcomes.units == ("0", "2", "3")
    assert found.outcomes.right[:, 0].tolist() == [1, 0, 1]
    assert not found.files


def test_its_scores_give_its_figures_again(annotations: Path, tmp_path: Path) -> None:
    found = score(annotations, Length(True))
    scores = tmp_path / "scores.jsonl"
    scores.write_text("\n".join(found.lines))
    again = task().rescore(scores, annotations)
    assert again == {name: found.figures[name] for name in again}
    assert again["n_pairs"] == 6 and again["rule"] == "longer"
    assert task().rescore(scores, None) == again
    assert task().outcomes(scores).units == found.outcomes.units
    assert [card.right for card in task().cards(tmp_path)] == [True, False, True]
    with scores.open("a") as file:
        file.write('\n{"label": "1_0", "score": 0.1}\n{"label": "1_1", "score": 0.2}\n')
    assert task().rescore(scores, annotations) == again  # the dropped ones


def test_scores_of_another_task_are_refused(annotations: Path, tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").write_text('{"label": "0_c", "score": 0.5}\n')
    with pytest.raises(UserError, match="another task"):
        task().rescore(tmp_path / "scores.jsonl", None)


@pytest.mark.parametrize(
    ("group", "limit", "pairs"), [("file", 1, 4), (None, 1, 2), ("file", 2, 6), (None, 2, 4), (None, 0, 6)]
)
def test_a_limit_is_of_each_file(annotations: Path, group: str | None, limit: int, pairs: int) -> None:
    assert score(annotations, Length(True), Selection(limit=limit), group=group).figures["n_pairs"] == pairs


def test_examples_without_image_are_refused_or_left_out(annotations: Path) -> None:
    (annotations.parent / "b.png").unlink()
    with pytest.raises(UserError, match="1 images missing: b "):
        score(annotations, Length(True))
    found = score(annotations, Length(True), Selection(available=True)).figures
    assert (found["n_pairs"], found["missing_images"], found["overall"]) == (4, ["b"], 100)


def test_nothing_left_to_score_is_refused(annotations: Path) -> None:
    annotations.write_text("# a b\n")
    with pytest.raises(UserError, match=r"toy\.txt: no example left to score"):
        score(annotations, Length(True), Selection(available=True))


def test_figures_with_a_threshold_are_left_out_for_similarities(annotations: Path) -> None:
    """Also out of the outcomes, of which a report makes its figures and tests."""
    whole, scored = score(annotations, Length(True)), score(annotations, Length(False))
    assert whole.figures["at_half"] == 1 and whole.outcomes.names == ("overall", "at_half")
    found = scored.figures
    assert "at_half" not in found and set(scored.outcomes.figures()) == {"overall"}
    assert (found["overall"], found["score"]) == (
        pytest.approx(200 / 3),
        "similarity",
    )


@pytest.mark.parametrize("says", [True, False])
def test_a_task_with_a_threshold_refuses_similarities(annotations: Path, says: bool) -> None:
    with pytest.raises(UserError, match="toy has a threshold"):
        score(annotations, Length(False, says), thresholded=("overall",))
    assert score(annotations, Length(True), thresholded=("overall",)).figures["overall"]


def test_its_cell_is_the_overall_figure_unless_it_has_a_table() -> None:
    found = {"overall": 40.0, "interval95": [30, 50], "n": 9, "chance": 25.0}
    assert task().cells(found) == {"Toy": Cell(40, (30, 50), 25, 9, "overall")}
    other = Cell(1, None, None, 1)
    assert task(table=lambda figures: {"Toy": other}).cells(found) == {"Toy": other}
    assert task().splits(Path("anything")) == set()
