"""Explanations as one page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from torch import Tensor

from relvlm.explain.explanation import EntityView, Explanation, RelationBar, Reply
from relvlm.explain.heat import positive
from relvlm.explain.overlay import DrawnBox, heat_address, photo_address, view
from relvlm.explain.style import STYLE

SLIDER = (
    "<label class=slide>strength <input type=range min=0 max=1 step=.05 value=1 aria-label='strength of the heat' "
    "oninput=\"document.documentElement.style.setProperty('--heat',this.value)\"></label>"
)


def page(title: str, explanations: Sequence[Explanation], about: str = "") -> str:
    """HTML of a section each; `about`: a line under the title."""
    places = "".join(_place(number, x) for number, x in enumerate(explanations))
    sections = "".join(f"<section>{_section(x, f'p{number}')}</section>" for number, x in enumerate(explanations))
    line = f"<p class=pale>{escape(about)}</p>" * bool(about)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        '<link rel=icon href="data:,"><meta name=viewport content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}{places}</style><h1>{escape(title)}</h1>{line}{_legend(explanations)}{sections}</html>\n"
    )


def _place(number: int, x: Explanation) -> str:
    """The photo's address stands once in the page, as the background of a class."""
    shape, address = f"{x.photo.width}/{x.photo.height}", photo_address(x.photo)
    sharp = ";image-rendering:pixelated" if max(x.photo.size) <= 64 else ""
    return f".p{number}{{aspect-ratio:{shape}}}.p{number} i{{background-image:url({address}){sharp}}}"


def _legend(explanations: Sequence[Explanation]) -> str:
    boxes = [box for x in explanations for box in _boxes(x)]
    keys = [f"<span class='key {kind}'>{kind}</span>" for kind in dict.fromkeys(box.kind for box in boxes)]
    keys += ["<span><b></b>predicted</span>"] * any(not box.given for box in boxes)
    keys += ["<span><b class=given></b>given</span>"] * any(box.given for box in boxes)
    heat = f"<span>heat: none<span class=ramp></span>most of the map</span>{SLIDER}"
    return f"<div class=legend>{''.join(keys)}{heat}</div>"


def _section(x: Explanation, of: str) -> str:
    parts = [_matches(x), "".join(f"<p class=note>{escape(note)}</p>" for note in x.notes), _looks(x, of)]
    parts += [_words(x.reply, x.grid, of), _relations(x)]
    return "".join(parts)


def _matches(x: Explanation) -> str:
    """Match probability of the text, and of the swapped one."""
    cards = [_match("Match", x.reply)] + ([_match("Swapped", x.swapped)] if x.swapped else [])
    return f"<div class='grid wide'>{''.join(cards)}</div>"


def _match(title: str, reply: Reply) -> str:
    share = reply.heat.probability
    odds = f"log odds {reply.heat.odds:+.2f}"
    return (
        f"<div class=card><span class=pale>{title}, {odds}</span><div class=big>{_percent(share)}</div>"
        f"{_meter(share)}<div>{escape(reply.query.text)}</div></div>"
    )


def _looks(x: Explanation, of: str) -> str:
    """The photo with its boxes, and heat maps: of all, of each entity, of the swapped text."""
    boxes = _boxes(x)
    shown = [_figure(view(boxes, of=of), "The photo" + (", and boxes" if boxes else ""))]
    shown.append(_heat(x, x.reply.heat.whole_N, "All words", of))
    for entity in x.entities:
        name = f"<span class='key {entity.role}'>{entity.role}</span> {escape(entity.label)}"
        shown.append(_heat(x, entity.heat_N, name, of, _of_entity(entity)))
    if x.swapped:
        shown.append(_heat(x, x.swapped.heat.whole_N, f"Swapped: {escape(x.swapped.query.text)}", of))
    about = (
        "Gradient times input of the match's log odds at each patch: what the match rests on. Each map has a scale of "
        "its own; what speaks against a match is left blank. Of subject and object: their labels alone, as texts."
    )
    return f"<h2>Where it looks</h2><p class=pale>{about}</p><div class=grid>{''.join(shown)}</div>"


def _words(reply: Reply, grid: tuple[int, int], of: str) -> str:
    """A map for each word, with its share of all words' heat."""
    words = reply.heat.reading.words
    maps = [reply.heat.of_words(i, i + 1) for i in range(len(words))]
    weights = [each.clamp(min=0).sum().item() for each in maps]
    total = max(sum(weights), 1e-12)
    shown = [
        _figure(view((), heat_address(each, grid), of), f"<b>{escape(word)}</b> {_percent(weight / total)}")
        for word, each, weight in zip(words, maps, weights, strict=True)
    ]
    about = (
        "What each word itself saw; [CLS], which sees for the whole text, is in none of them. The figure is the "
        "word's share of the words' heat."
    )
    return f"<h2>Word by word</h2><p class=pale>{about}</p><div class='grid small'>{''.join(shown)}</div>"


def _relations(x: Explanation) -> str:
    replies = [reply for reply in (x.reply, x.swapped) if reply and reply.relations]
    if not replies:
        return ""
    about = (
        "MRC sees subject and object within their boxes alone and says how they relate; beside it, how well the "
        "sentence with that relation matches the whole photo. Bold: the relation asked for."
    )
    tables = "".join(_table(reply) for reply in replies)
    return f"<h2>Relations</h2><p class=pale>{about}</p><div class='grid wide'>{tables}</div>"


def _table(reply: Reply) -> str:
    triplet = reply.query.triplet
    assert triplet is not None
    rows = "".join(_row(bar, bar.name == triplet.relation) for bar in reply.relations)
    return (
        f"<div class=card><b>{escape(triplet.subject)}</b> ... <b>{escape(triplet.object)}</b><table class=bars>"
        "<colgroup><col class=name><col><col><col><col></colgroup>"
        f"<tr><th>relation<th colspan=2>MRC<th colspan=2>caption{rows}</table></div>"
    )


def _row(bar: RelationBar, own: bool) -> str:
    return (
        f"<tr{' class=own' * own}><td>{escape(bar.name)}<td>{_meter(bar.mrc, 'mrc')}<td class=n>{_percent(bar.mrc)}"
        f"<td>{_meter(bar.caption)}<td class=n>{_percent(bar.caption)}"
    )


def _boxes(x: Explanation) -> list[DrawnBox]:
    boxes = [DrawnBox(e.predicted, e.role, e.label) for e in x.entities if e.predicted]
    boxes += [DrawnBox(e.given, e.role, "" if e.predicted else e.label, given=True) for e in x.entities if e.given]
    return boxes + ([DrawnBox(x.caption_box, "caption", "the caption")] if x.caption_box else [])


def _of_entity(entity: EntityView) -> list[DrawnBox]:
    return [DrawnBox(entity.box, entity.role, "", given=bool(entity.given))] if entity.box else []


def _heat(x: Explanation, heat_N: Tensor, caption: str, of: str, boxes: Sequence[DrawnBox] = ()) -> str:
    share = f" <span class=pale>{_peak(heat_N)}</span>"
    return _figure(view(boxes, heat_address(heat_N, x.grid), of), caption + share)


def _peak(heat_N: Tensor) -> str:
    """How much of the map its warmest patch holds, for maps have scales of their own."""
    if not bool((heat_N > 0).any()):
        return "no patch speaks for a match"
    return f"warmest patch {_percent(positive(heat_N).max().item())}"


def _figure(inner: str, caption: str) -> str:
    return f"<figure>{inner}<figcaption>{caption}</figcaption></figure>"


def _meter(share: float, kind: str = "") -> str:
    return f"<span class='meter {kind}'><span style='width:{100 * share:.1f}%'></span></span>"


def _percent(share: float) -> str:
    """Never 0% or 100% of what is neither."""
    if 0 < share < 0.001 or 0.999 < share < 1:
        return "&lt;0.1%" if share < 0.5 else "&gt;99.9%"
    return f"{100 * share:.1f}%"
