"""A self-contained HTML page of examples: image, texts, scores, right or wrong, a few of each for every task."""

from __future__ import annotations

import base64
import html
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from relvlm.evals.contrast import Contrast, contrasts
from relvlm.evals.files import Row, find_image, read_json, read_jsonl

PER_SIDE = 6
THUMBNAIL = 224
STYLE = """
body{font:15px/1.4 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(16rem,1fr));gap:1rem}
figure{margin:0;padding:.7rem;border:1px solid #ddd;border-left:6px solid #c33;border-radius:4px}
figure.right{border-left-color:#2a7}
figure div{display:flex;gap:.4rem;flex-wrap:wrap}
img{width:min(100%,224px);image-rendering:pixelated}
p{margin:.3rem 0}.score{font-variant-numeric:tabular-nums;color:#555}.what{font-size:.85em;color:#777}
"""


@dataclass(frozen=True)
class Shown:
    """One example: image names, (description, text, score) lines, whether the model is right, and what it tests."""

    images: tuple[str, ...]
    lines: tuple[tuple[str, str, float], ...]
    right: bool
    what: str


def write_page(evaluations: Iterable[Path], page: Path) -> None:
    """The page of these evaluation folders (each with scores.jsonl and metrics.json)."""
    sections = [_section(folder) for folder in evaluations]
    body = "\n".join(section for section in sections if section)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Examples</title><style>{STYLE}</style>"
        f"<h1>Examples</h1><p>Green: the model is right. Scores are ITM match probabilities"
        f" (retrieval: match logits).</p>{body}</html>\n",
        encoding="utf-8",
    )


def examples(task: str, rows: Sequence[Row], folder: Path) -> list[Shown]:
    """All examples of a scores file, in its order."""
    if task == "vsr":
        return [_vsr(row) for row in rows]
    if task in ("valse", "sugarcrepe"):
        group, endings = ("instrument", ("c", "f")) if task == "valse" else ("piece", ("c", "n"))
        return [_texts(pair) for pair in contrasts(rows, group, endings)]
    if task == "svo":
        return [_images(pair) for pair in contrasts(rows, None, ("p", "n"))]
    if task == "winoground":
        return _winoground(rows)
    return _retrieval(rows, read_json(folder / "gallery.json")["texts"])


def choose(shown: Sequence[Shown], per_side: int = PER_SIDE) -> list[Shown]:
    """Right and wrong ones in turn, at most `per_side` of each, spread evenly over the file."""
    sides = [_spread([s for s in shown if s.right is side], per_side) for side in (True, False)]
    return [s for side in sides for s in side]


def _section(folder: Path) -> str:
    figures, rows = read_json(folder / "metrics.json"), list(read_jsonl(folder / "scores.jsonl"))
    images = Path(figures["protocol"]["images"])
    cards = "\n".join(_card(s, images) for s in choose(examples(figures["task"], rows, folder)))
    return f"<h2>{html.escape(figures['task'])}: {figures['overall']:.1f}</h2><div class=grid>{cards}</div>"


def _card(shown: Shown, images: Path) -> str:
    pictures = "".join(_picture(name, images) for name in shown.images)
    lines = "".join(
        f"<p><b>{html.escape(kind)}</b> {html.escape(text)} <span class=score>{score:.3f}</span></p>"
        for kind, text, score in shown.lines
    )
    side = "right" if shown.right else "wrong"
    return f"<figure class={side}><div>{pictures}</div>{lines}<p class=what>{html.escape(shown.what)}</p></figure>"


def _picture(name: str, images: Path) -> str:
    path = find_image(images, name)
    if path is None:
        return f"<p>(image {html.escape(name)} is no longer in {html.escape(str(images))})</p>"
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(name)}" src="data:image/jpeg;base64,{data}">'


def _vsr(row: Row) -> Shown:
    truth = "true" if row["label"] == 1 else "false"
    right = (row["score"] >= 0.5) == (row["label"] == 1)
    return Shown((row["image"],), ((f"{truth}:", row["text"], row["score"]),), right, row["relation"])


def _texts(pair: Contrast) -> Shown:
    right, wrong = pair.right, pair.wrong
    lines = (("caption:", right["text"], right["score"]), ("foil:", wrong["text"], wrong["score"]))
    what = right.get("instrument") or right.get("piece") or ""
    return Shown((right["image"],), lines, pair.won, what)


def _images(pair: Contrast) -> Shown:
    right, wrong = pair.right, pair.wrong
    lines = (
        ("left image:", right["text"], right["score"]),
        ("right image:", "the same text", wrong["score"]),
    )
    what = f"left {right.get('pos_triplet', '')}, right {right.get('neg_triplet', '')}"
    return Shown((right["image"], wrong["image"]), lines, pair.won, what)


def _winoground(rows: Sequence[Row]) -> list[Shown]:
    quads: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        identity, _, cell = row["label"].partition("_")
        quads[identity][cell] = row
    return [_quad(quad) for quad in quads.values()]


def _quad(quad: dict[str, Row]) -> Shown:
    names = {"c0_i0": "left:", "c0_i1": "right:", "c1_i0": "left:", "c1_i1": "right:"}
    s = {cell: quad[cell]["score"] for cell in names}
    text = s["c0_i0"] > s["c1_i0"] and s["c1_i1"] > s["c0_i1"]
    image = s["c0_i0"] > s["c0_i1"] and s["c1_i1"] > s["c1_i0"]
    lines = tuple((name, quad[cell]["text"], s[cell]) for cell, name in names.items())
    what = f"text {'right' if text else 'wrong'}, image {'right' if image else 'wrong'}"
    return Shown((quad["c0_i0"]["image"], quad["c0_i1"]["image"]), lines, text and image, what)


def _retrieval(rows: Sequence[Row], texts: Sequence[str]) -> list[Shown]:
    """Each image with the text ranked first and, where that is wrong, its best own one."""
    by_image: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row["tr"]:
            by_image[row["image"]].append(row)
    shown = []
    for candidates in by_image.values():
        first = max(candidates, key=lambda row: (row["score"], -row["label"]))
        own = max((r for r in candidates if r["label"]), key=lambda row: row["score"], default=None)
        lines = [("first:", texts[first["text"]], first["score"])]
        if own is not None and own is not first:
            lines.append(("its own:", texts[own["text"]], own["score"]))
        shown.append(Shown((first["name"],), tuple(lines), bool(first["label"]), "text of an image (TR@1)"))
    return shown


def _spread(shown: Sequence[Shown], number: int) -> list[Shown]:
    if len(shown) <= number:
        return list(shown)
    return [shown[i * len(shown) // number] for i in range(number)]
