"""ARO (Yuksekgonul et al., ICLR 2023): relations and attributes of Visual Genome crops; shuffled captions.

Files: visual_genome_relation.json, visual_genome_attribution.json, and lists of {image, caption_options} whose first
option is the true one (COCO order, Flickr30K order, written out: their shuffles are random).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relvlm.evals.figures.main_table import Column
from relvlm.evals.figures.outcomes import Derived
from relvlm.evals.files import Row, piece_name
from relvlm.evals.scoring.photos import CropBox
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.options import LABEL, Choice, choice_pairs, choices
from relvlm.evals.tasks.pairs import Benchmark, Example, PairTask, benchmark_of
from relvlm.evals.tasks.records import Record, listed
from relvlm.evals.tasks.verdict import Verdict

KIND = "ARO"
PIECES = {"visual_genome_relation": "relation", "visual_genome_attribution": "attribution"}
BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")
FIELDS = (*BOX, "relation_name", "attributes")
LEAST = 25  # ARO leaves out pairs of attributes with fewer examples
# The relations that ARO's published macro average leaves out (its notebook "Replicate ARO" calls them symmetric).
SYMMETRIC = (
    "adjusting, attached to, between, bigger than, biting, boarding, brushing, chewing, cleaning, climbing, "
    "close to, coming from, coming out of, contain, crossing, dragging, draped over, drinking, drinking from, "
    "driving, driving down, driving on, eating from, eating in, enclosing, exiting, facing, filled with, "
    "floating in, floating on, flying, flying above, flying in, flying over, flying through, full of, going down, "
    "going into, going through, grazing in, growing in, growing on, guiding, hanging from, hanging in, "
    "hanging off, hanging over, higher than, holding onto, hugging, in between, jumping off, jumping on, "
    "jumping over, kept in, larger than, leading, leaning over, leaving, licking, longer than, looking in, "
    "looking into, looking out, looking over, looking through, lying next to, lying on top of, making, "
    "mixed with, mounted on, moving, on the back of, on the edge of, on the front of, on the other side of, "
    "opening, painted on, parked at, parked beside, parked by, parked in, parked in front of, parked near, "
    "parked next to, perched on, petting, piled on, playing, playing in, playing on, playing with, pouring, "
    "reaching for, reading, reflected on, riding on, running in, running on, running through, seen through, "
    "sitting behind, sitting beside, sitting by, sitting in front of, sitting near, sitting next to, "
    "sitting under, skiing down, skiing on, sleeping in, sleeping on, smiling at, sniffing, splashing, "
    "sprinkled on, stacked on, standing against, standing around, standing behind, standing beside, "
    "standing in front of, standing near, standing next to, staring at, stuck in, surrounding, swimming in, "
    "swinging, talking to, topped with, touching, traveling down, traveling on, tying, typing on, underneath, "
    "wading in, waiting for, walking across, walking by, walking down, walking next to, walking through, "
    "working in, working on, worn on, wrapped around, wrapped in, by, of, near, next to, with, beside, "
    "on the side of, around"
)
LEFT_OUT = frozenset(SYMMETRIC.split(", "))


def load(annotations: Path) -> Benchmark:
    """Examples of one file or of all in a folder."""
    return benchmark_of(annotations, "aro", ".json", _examples)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Right if option 0 scores above all others, strictly; UserError where an option is absent."""
    return [_verdict(choice) for choice in choices(rows, KIND)]


def derived(judged: Sequence[Verdict]) -> Derived:
    """ARO's macro averages, over relations but LEFT_OUT and pairs of attributes with at least LEAST examples."""
    kinds = verdict.nested(verdict.flags(judged), "kind")
    relations = [k for k in verdict.nested(kinds, "relation") if k not in LEFT_OUT]
    attributes = [k for k, flags in verdict.nested(kinds, "attribution").items() if len(flags) >= LEAST]
    return {
        f"macro_{piece}": ("mean", tuple(f"kind/{piece}/{k}" for k in counted))
        for piece, counted in (("relation", relations), ("attribution", attributes))
        if counted
    }


def figures(judged: Sequence[Verdict]) -> Row:
    """Micro accuracy, each file's, and ARO's own macro averages over relations and over pairs of attributes.

    `chances` are those of the files: an order has five options, the others have two.
    """
    macro = verdict.combined(derived(judged), verdict.flags(judged))
    pieces = {name: [v for v in judged if v.card.piece == name] for name in verdict.groups(judged)}
    chances = {name: verdict.chance(part) for name, part in pieces.items()}
    return {**verdict.accuracy(judged), **macro, "chance": verdict.chance(judged), "chances": chances}


def _verdict(choice: Choice) -> Verdict:
    kind = choice.rows[0].get("kind")
    marks = dict.fromkeys(("overall", choice.piece, f"kind/{choice.piece}/{kind}"), choice.won)
    what = str(kind or "")
    return Verdict(choice.unit, choice.rows, marks, choice.card(what, what if choice.piece == "relation" else ""))


def _examples(file: Path) -> list[Example]:
    name = piece_name(file, "aro")
    piece = PIECES.get(name, name)
    return [_example(i, record, piece) for i, record in enumerate(listed(file, KIND, FIELDS))]


def _example(number: int, record: Record, piece: str) -> Example:
    if record.has("caption_options"):
        return choice_pairs(str(number), record.image("image"), record.texts("caption_options", 2), {"piece": piece})
    texts = [record.text("true_caption"), record.text("false_caption")]
    fields = {"piece": piece, "kind": _kind(record)}
    return choice_pairs(str(number), record.image("image_path"), texts, fields, _box(record))


def _kind(record: Record) -> str:
    """The relation, or the two attributes."""
    return record.text("relation_name") if record.has("relation_name") else "_".join(record.texts("attributes"))


def _box(record: Record) -> CropBox:
    x, y, w, h = (record.whole(name) for name in BOX)
    if w < 1 or h < 1:
        raise record.error("bbox_w" if w < 1 else "bbox_h", f"{min(w, h)} (a crop is at least a pixel wide and high)")
    return x, y, x + w, y + h


TASK = PairTask(
    "aro",
    load,
    verdicts,
    figures,
    (Column("ARO", 80, "fine"),),
    key=("piece", "label"),
    label=LABEL,
    rule="the crop's true caption above all others, strictly; micro average, and ARO's macro averages beside it",
    derived=derived,
    group="piece",
)
