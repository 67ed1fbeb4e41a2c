"""SugarCrepe++ (Dumpala et al., NeurIPS 2024): two captions that say the same, and a fluent negative one.

Image to text (ITT): both captions score above the negative one; by ITM, and by the cosine of the features, which the
official code takes for X-VLM too. Text only (TOT): the two captions' features are nearer to each other than either is
to the negative one. All strictly, as in github.com/Sri-Harsha/scpp (VLMs/test_XVLM_4M.py). Two rows of swap_obj (ids
2 and 8) have a negative equal to a caption: nobody can be right there, the official code counts them, and so do we;
`negative_equals_caption` says how many there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from relvlm.errors import UserError
from relvlm.evals.figures.main_table import Column
from relvlm.evals.figures.outcomes import Derived
from relvlm.evals.files import Row, piece_name, require
from relvlm.evals.images import COCO
from relvlm.evals.scoring.cosines import image_text_cosines, text_cosines
from relvlm.evals.scoring.scorer import Scorer
from relvlm.evals.tasks import verdict
from relvlm.evals.tasks.pairs import Benchmark, Example, Pair, PairTask, benchmark_of, scored_pairs
from relvlm.evals.tasks.records import Record, listed_or_keyed
from relvlm.evals.tasks.task import Card
from relvlm.evals.tasks.verdict import Verdict, held_out

KIND = "SugarCrepe++"
FIELDS = ("filename", "caption", "caption2", "negative_caption", "held_out")
TEXTS = dict(zip(("c1", "c2", "n"), FIELDS[1:4], strict=True))  # ending of the label: field
COSINE, NEXT = "cosine", "text_cosine"  # of the photo and the text; of the text and the next of the three
WAYS = ("", "cosine/", "text_only/")  # prefixes of the figures


def load(annotations: Path) -> Benchmark:
    """Examples of one file or of all in a folder."""
    return benchmark_of(annotations, "sugarcrepe_pp", ".json", _examples)


def measured(scorer: Scorer, pairs: Sequence[Pair], paths: Mapping[str, Path]) -> tuple[list[Row], str]:
    """Rows with both cosines beside the score, where the model has features; images stay encoded once."""
    rows, kind = scored_pairs(scorer, pairs, paths)
    if not scorer.matcher.has_features:
        return rows, kind
    texts = [p.text for p in pairs]
    following = [texts[i - 2 if i % 3 == 2 else i + 1] for i in range(len(texts))]
    to_image = image_text_cosines(scorer, [paths[p.image] for p in pairs], texts).tolist()
    to_next = text_cosines(scorer, texts, following).tolist()
    for row, image, text in zip(rows, to_image, to_next, strict=True):
        row |= {COSINE: image, NEXT: text}
    return rows, kind


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """ITT by score and, where rows have them, ITT by cosine and TOT."""
    triples: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        require(row, ("piece", "label"), "scores", f"{KIND} score")
        identity, _, ending = str(row["label"]).rpartition("_")
        triples[str(row["piece"]), identity][ending] = row
    return [_verdict(*key, triple) for key, triple in triples.items()]


def above(first: float, second: float, negative: float) -> bool:
    """ITT: both captions strictly above the negative one."""
    return first > negative and second > negative


def nearest(captions: float, second: float, first: float) -> bool:
    """TOT: the captions' cosine strictly above those of each and the negative one."""
    return captions > second and captions > first


def derived(judged: Sequence[Verdict]) -> Derived:
    """Means over the files, all of them and those of each kind of edit, of each way of judging."""
    files = tuple(verdict.groups(judged))
    found: Derived = {}
    for way in (w for w in WAYS if not w or any(f"{w}overall" in v.marks for v in judged)):
        found[f"{way}macro_over_files"] = ("mean", tuple(way + name for name in files))
        for edit in dict.fromkeys(name.partition("_")[0] for name in files):
            parts = tuple(way + name for name in files if name.partition("_")[0] == edit)
            found[f"{way}macro_by_edit/{edit}"] = ("mean", parts)
    return found


def figures(judged: Sequence[Verdict]) -> Row:
    """ITT by score: micro accuracy, each file's, means; the same by cosine and of texts alone, where rows have them."""
    found = verdict.flags(judged)
    combined = verdict.combined(derived(judged), found)
    return {
        **verdict.accuracy(judged),
        "macro_over_files": combined["macro_over_files"],
        "macro_by_edit": verdict.nested(combined, "macro_by_edit"),
        **{way[:-1]: _figures_of(way, found, combined) for way in WAYS[1:] if f"{way}overall" in found},
        "negative_equals_caption": sum(_is_hopeless(v.rows) for v in judged),
        "chance": verdict.chance(judged),
        **verdict.held_out_accuracy(found),
    }


def _figures_of(way: str, found: verdict.Flags, combined: Mapping[str, float]) -> Row:
    files = verdict.nested(found, way[:-1])
    return {
        **{name: 100 * sum(flags) / len(flags) for name, flags in files.items()},
        "macro_over_files": combined[f"{way}macro_over_files"],
        "macro_by_edit": verdict.nested(combined, f"{way}macro_by_edit"),
    }


def _verdict(file: str, identity: str, triple: Mapping[str, Row]) -> Verdict:
    absent = [ending for ending in TEXTS if ending not in triple]
    if absent:
        raise UserError(f"scores: {identity}_{absent[0]} of {file}: absent (score all three of an example)")
    rows = tuple(triple[ending] for ending in TEXTS)
    won = above(*(row["score"] for row in rows))
    marks = dict.fromkeys(verdict.names(rows[0], file), won)
    for way, field, rule in (("cosine/", COSINE, above), ("text_only/", NEXT, nearest)):
        if all(field in row for row in rows):
            marks |= dict.fromkeys((f"{way}overall", way + file), rule(*(row[field] for row in rows)))
    kinds = ("caption:", "caption:", "foil:")
    lines = tuple((kind, row.get("text", ""), row["score"]) for kind, row in zip(kinds, rows, strict=True))
    return Verdict(f"{file} {identity}", rows, marks, Card((rows[0].get("image", ""),), lines, won, file))


def _is_hopeless(rows: Sequence[Row]) -> bool:
    """Whether the negative caption is one of the others."""
    return "text" in rows[2] and rows[2]["text"] in (rows[0].get("text"), rows[1].get("text"))


def _examples(file: Path) -> list[Example]:
    piece = piece_name(file, "sugarcrepe_pp")
    return [_example(key, record, piece) for key, record in listed_or_keyed(file, KIND, FIELDS).items()]


def _example(key: str, record: Record, piece: str) -> Example:
    fields = {"piece": piece, **held_out(record.row, record.where)}
    identity = record.identity("id") if record.has("id") else key
    return tuple(
        Pair(record.image("filename"), record.text(field), {"label": f"{identity}_{ending}", **fields})
        for ending, field in TEXTS.items()
    )


TASK = PairTask(
    "sugarcrepe_pp",
    load,
    verdicts,
    figures,
    (Column("SugarCrepe++", 62, "fine"),),
    key=("piece", "label"),
    label=".+_(c1|c2|n)",
    rule="ITT: right if both captions > the negative one; TOT: the captions nearest to each other; strictly; micro",
    derived=derived,
    group="piece",
    data_sets=(COCO,),
    measured=measured,
)
