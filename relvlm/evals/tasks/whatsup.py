"""What'sUp (Kamath et al., EMNLP 2023): which of four (A, B) or two (COCO, GQA) captions has the right preposition?

Six files (github.com/amitakamath/whatsup_vlms): A and B are lists of {image_path, caption_options}, those of COCO's and
GQA's photos of [image id, true caption, false caption]; the first caption is right. Their names go about in both cases
(coco_qa_one_obj.json, COCO_QA_one_obj.json). In A and B the name of a photo, `mug_left_of_plate.jpeg`, says which four
are a set, and which two of a set (left and right, on and under, in front of and behind) a pair.

Published figures of models with an ITM head, X-VLM's too, are by the match logit plus the cosine of the features
(model_zoo/xvlm_models.py): `logit_and_cosine` has the figures of that way, beside those by the match probability.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from relvlm.errors import UserError
from relvlm.evals.figures import shares
from relvlm.evals.figures.main_table import Cell, Column
from relvlm.evals.figures.outcomes import Derived
from relvlm.evals.files import Row
from relvlm.evals.images import COCO, VISUAL_GENOME
from relvlm.evals.scoring.cosines import image_text_cosines
from relvlm.evals.scoring.scorer import Scorer, as_scores, distinct
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.options import LABEL, Choice, choice_pairs, choices
from relvlm.evals.tasks.pairs import PROBABILITY, SIMILARITY, Benchmark, Example, Pair, PairTask, pair_rows
from relvlm.evals.tasks.records import Record, arrays, listed, read_tree
from relvlm.evals.tasks.verdict import Verdict, held_out

KIND = "What'sUp"
FIELDS = ("image_path", "caption_options", "held_out")
LENGTH = 3  # of a row of COCO's and GQA's
PIECES = {
    "controlled_images_dataset": "A",
    "controlled_clevr_dataset": "B",
    "coco_qa_one_obj": "coco_one",
    "coco_qa_two_obj": "coco_two",
    "vg_qa_one_obj": "gqa_one",
    "vg_qa_two_obj": "gqa_two",
}
CONTROLLED = ("A", "B")
OPPOSITE = {"left": "right", "on": "under", "in-front": "behind"}  # a pair counts with the first
PHOTOS = {"pairs": 2, "sets": 4}
SUM = "logit_and_cosine"
WAYS = {"": "score", f"{SUM}/": SUM}  # prefix of the figures: field
COLUMN = Column("What'sUp", 65, "fine")


def load(annotations: Path) -> Benchmark:
    """Examples of one file or of all six in a folder, which may have others beside them."""
    beside = sorted(annotations.glob("*.json")) if annotations.is_dir() else []
    found = [file for name in PIECES for file in beside if file.stem.lower() == name]
    if not annotations.is_dir():
        found = [annotations]
    if not found:
        raise UserError(f"{annotations}: none of {', '.join(PIECES)} (.json) in this folder (give the What'sUp files)")
    return Benchmark(tuple(example for file in found for example in _examples(file)))


def measured(scorer: Scorer, pairs: Sequence[Pair], paths: Mapping[str, Path]) -> tuple[list[Row], str]:
    """Rows with the published way's sum beside the score, where the model has an ITM head and features."""
    photos, texts = [paths[p.image] for p in pairs], [p.text for p in pairs]
    names, image = distinct(photos)
    said, text = distinct(texts)
    logits = scorer.match_logits(names, said, image, text)
    scores, are_probabilities = as_scores(logits)
    rows = pair_rows(pairs, scores.tolist())
    if are_probabilities and scorer.matcher.has_features:
        sums = logits[:, 1] + image_text_cosines(scorer, photos, texts)
        for row, value in zip(rows, sums.tolist(), strict=True):
            row[SUM] = value
    return rows, PROBABILITY if are_probabilities else SIMILARITY


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Right if the true caption is above all others, strictly; a pair, a set where all its photos are right.

    By score and, where all rows have it, by the published way's sum.
    """
    found = choices(rows, KIND)
    marks: list[dict[str, bool]] = [{} for _ in found]
    for way, field in WAYS.items():
        if all(field in row for each in found for row in each.rows):
            for mark, more in zip(marks, _marks(found, way, field), strict=True):
                mark |= more
    relations = (str(each.rows[0].get("relation", "")) for each in found)
    parts = zip(found, marks, relations, strict=True)
    return [Verdict(each.unit, each.rows, mark, each.card(relation)) for each, mark, relation in parts]


def derived(judged: Sequence[Verdict]) -> Derived:
    """`overall` of each way: the mean of the files' accuracies; `average` is the same where all six are there."""
    files = tuple(verdict.groups(judged))
    titles = ["overall", "average"] if set(files) == set(PIECES.values()) else ["overall"]
    ways = [way for way in WAYS if any(f"{way}micro" in v.marks for v in judged)]
    return {way + title: ("mean", tuple(way + name for name in files)) for way in ways for title in titles}


def figures(judged: Sequence[Verdict]) -> Row:
    """Each file's accuracy, pairs and sets of A and B, and the mean of the files, which is `overall`.

    `average` is that of all six, which others publish.

    `chances` are those of the options that were scored; of a pair and a set, the product of their photos'.
    """
    found, combined = verdict.flags(judged), verdict.combined(derived(judged), verdict.flags(judged))
    accuracy, by_score = verdict.accuracy(judged), _figures_of("", found, combined)
    interval95 = accuracy.pop("interval95")  # of all photos alike
    counted = [f"{kind}/{name}" for kind in PHOTOS for name in by_score[kind]]
    accuracy["counts"] |= {name: len(found[name]) for name in counted}
    parts = {name: [v for v in judged if v.card.piece == name] for name in verdict.groups(judged)}
    chances = {name: verdict.chance(part) for name, part in parts.items()}
    power = {f"{k}/{name}": 100 * (chances[name] / 100) ** n for k, n in PHOTOS.items() for name in by_score[k]}
    return {
        **accuracy,
        "interval95_micro": interval95,
        **by_score,
        **{way[:-1]: _figures_of(way, found, combined) for way in WAYS if way and f"{way}micro" in found},
        "chance": fmean(chances.values()),
        "chances": {**chances, **power},
        **verdict.held_out_accuracy(found),
    }


def _figures_of(way: str, found: verdict.Flags, combined: Mapping[str, float]) -> Row:
    """One way's figures; the files', too, where it is not the score's."""
    share = {name.removeprefix(way): shares.share(flags) for name, flags in found.items() if name.startswith(way)}
    files = {name: value for name, value in share.items() if way and name in PIECES.values()}
    several = {kind: verdict.nested(share, kind) for kind in PHOTOS}
    means = {name: combined[way + name] for name in ("overall", "average") if way + name in combined}
    return {**means, **files, "micro": share["micro"], **several}


def table(found: Row) -> dict[str, Cell]:
    """The published average, whose interval is the bootstrap's."""
    return {COLUMN.title: Cell(found["overall"], None, found["chance"], found["n"])}


def _marks(found: Sequence[Choice], way: str, field: str) -> list[dict[str, bool]]:
    """Of each photo; the first of a pair or set that is whole counts it, too."""
    sets: dict[tuple[str, str], dict[str, bool]] = defaultdict(dict)
    for each in found:
        if "set" in each.rows[0]:
            sets[each.piece, each.rows[0]["set"]][str(each.rows[0].get("relation"))] = each.won_by(field)
    marks = []
    for each in found:
        first, piece = each.rows[0], each.piece
        relation, together = str(first.get("relation")), sets.get((piece, str(first.get("set"))), {})
        names = ["micro", *(name for name in verdict.names(first, piece) if name != "overall")]
        mark = dict.fromkeys(names, each.won_by(field))
        opposite = OPPOSITE.get(relation, "")
        if opposite in together:
            mark[f"pairs/{piece}"] = together[relation] and together[opposite]
        if relation == "left" and len(together) == PHOTOS["sets"]:
            mark[f"sets/{piece}"] = all(together.values())
        marks.append({way + name: flag for name, flag in mark.items()})
    return marks


def _examples(file: Path) -> list[Example]:
    piece = PIECES.get(file.stem.lower())
    if piece is None:
        read_tree(file, KIND)  # what another benchmark's file is, is said first
        raise _unnamed(file)
    if piece in CONTROLLED:
        return [_controlled(i, record, piece) for i, record in enumerate(listed(file, KIND, FIELDS))]
    return [_of_photo(i, record, piece) for i, record in enumerate(arrays(file, KIND, LENGTH))]


def _unnamed(file: Path) -> UserError:
    names = ", ".join(f"{name}.json" for name in PIECES)
    return UserError(f"{file}: not the name of a {KIND} file, which says what it is of (call it as published: {names})")


def _controlled(number: int, record: Record, piece: str) -> Example:
    """A photo of A or B; `data/`, where the official code keeps all files, is no part of its name."""
    name = record.image("image_path").removeprefix("data/")
    parts = name.rpartition("/")[2].rpartition(".")[0].split("_")
    fields: Row = {"piece": piece, **held_out(record.row, record.where)}
    if len(parts) > 2:
        fields |= {"set": f"{parts[0]} {parts[-1]}", "relation": parts[1]}
    return choice_pairs(str(number), name, record.texts("caption_options", 2), fields)


def _of_photo(number: int, record: Record, piece: str) -> Example:
    """COCO's ids have twelve digits in the photos' names, GQA's, which are Visual Genome's, as many as they have."""
    identity = record.image_id("[0]")
    name = f"{identity.zfill(12) if piece.startswith('coco') else identity}.jpg"
    return choice_pairs(str(number), name, [record.text("[1]"), record.text("[2]")], {"piece": piece})


TASK = PairTask(
    "whatsup",
    load,
    verdicts,
    figures,
    (COLUMN,),
    key=("piece", "label"),
    label=LABEL,
    rule="right if the true caption > all others, strictly; pairs, sets: all photos right; overall: mean of the files",
    derived=derived,
    group="piece",
    table=table,
    data_sets=(COCO, VISUAL_GENOME),
    measured=measured,
)
