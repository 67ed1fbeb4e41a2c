"""What'sUp (Kamath et al., EMNLP 2023): which of four (A, B) or two (COCO, GQA) captions has the right preposition?

Six files (github.com/amitakamath/whatsup_vlms): A and B are lists of {image_path, caption_options}, those of COCO's and
GQA's photos of [image id, true caption, false caption]; the first caption is right. In A and B the name of a photo,
`mug_left_of_plate.jpeg`, says which four are a set, and which two of a set (left and right, on and under, in front of
and behind) a pair.
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
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.options import LABEL, Choice, choice_pairs, choices
from relvlm.evals.tasks.pairs import Benchmark, Example, PairTask
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
SET = 4
COLUMN = Column("What'sUp", 65, "fine")


def load(annotations: Path) -> Benchmark:
    """Examples of one file or of all six in a folder, which may have others beside them."""
    files = [annotations] if not annotations.is_dir() else [annotations / f"{name}.json" for name in PIECES]
    found = [file for file in files if file.is_file() or not annotations.is_dir()]
    if not found:
        raise UserError(f"{annotations}: none of {', '.join(PIECES)} (.json) in this folder (give the What'sUp files)")
    return Benchmark(tuple(example for file in found for example in _examples(file)))


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Right if the true caption scores above all others, strictly; a pair, a set where all its photos are right."""
    found = choices(rows, KIND)
    sets: dict[tuple[str, str], dict[str, bool]] = defaultdict(dict)
    for each in found:
        if "set" in each.rows[0]:
            sets[each.piece, each.rows[0]["set"]][str(each.rows[0].get("relation"))] = each.won
    return [_verdict(each, sets[each.piece, str(each.rows[0].get("set"))]) for each in found]


def derived(judged: Sequence[Verdict]) -> Derived:
    """`overall`, the published average: the mean of the files' accuracies."""
    return {"overall": ("mean", tuple(verdict.groups(judged)))}


def figures(judged: Sequence[Verdict]) -> Row:
    """Each file's accuracy, pairs and sets of A and B, and their published average, which is `overall`.

    `chances` are those of the options that were scored; of a pair and a set, the product of their photos'.
    """
    found, pieces = verdict.flags(judged), verdict.groups(judged)
    parts = {name: [v for v in judged if v.card.piece == name] for name in pieces}
    chances = {name: verdict.chance(part) for name, part in parts.items()}
    several = {
        kind: {name: shares.share(flags) for name, flags in verdict.nested(found, kind).items()}
        for kind in ("pairs", "sets")
    }
    counts = {f"{kind}/{name}": len(found[f"{kind}/{name}"]) for kind, part in several.items() for name in part}
    accuracy = verdict.accuracy(judged)
    accuracy["counts"] = {**accuracy["counts"], **counts}
    photos = {"pairs": 2, "sets": SET}
    power = {f"{k}/{name}": 100 * (chances[name] / 100) ** photos[k] for k in photos for name in several[k]}
    return {
        **accuracy,
        "micro": accuracy["overall"],
        "interval95_micro": accuracy.pop("interval95"),
        **verdict.combined(derived(judged), found),
        **several,
        "chance": fmean(chances.values()),
        "chances": {**chances, **power},
        **verdict.held_out_accuracy(found),
    }


def table(found: Row) -> dict[str, Cell]:
    """The published average, whose interval is the bootstrap's."""
    return {COLUMN.title: Cell(found["overall"], None, found["chance"], found["n"])}


def _verdict(choice: Choice, together: Mapping[str, bool]) -> Verdict:
    """Of a photo; the first of a pair or set that is whole counts it, too."""
    first = choice.rows[0]
    relation, piece = str(first.get("relation")), choice.piece
    names = [name for name in verdict.names(first, piece) if name != "overall"]
    marks = dict.fromkeys(["micro", *names], choice.won)
    opposite = OPPOSITE.get(relation, "")
    if opposite in together:
        marks[f"pairs/{piece}"] = together[relation] and together[opposite]
    if relation == "left" and len(together) == SET:
        marks[f"sets/{piece}"] = all(together.values())
    return Verdict(choice.unit, choice.rows, marks, choice.card(relation if "relation" in first else ""))


def _examples(file: Path) -> list[Example]:
    piece = PIECES.get(file.stem)
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
)
