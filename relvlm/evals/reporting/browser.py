"""The error browser: examples with thumbnails as data in the page, and the script that filters them.

What is shown is in the address (`#task=vsr&outcome=wrong`), so that a view can be linked to.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from relvlm.config.schema import DataConfig
from relvlm.errors import UserError
from relvlm.evals.files import Row, read_json
from relvlm.evals.images import DATA_SETS, DataSet, find_image
from relvlm.evals.reporting.explained import Pages
from relvlm.evals.results import cards_of
from relvlm.evals.scoring.photos import CropBox, Photo
from relvlm.evals.tasks.registry import task_named
from relvlm.evals.tasks.task import Card

THUMBNAIL = 224
PER_SIDE = 12
NO_PAGES: Mapping[Path, Pages] = {}
FILTERS = ("model", "task", "piece", "outcome")
STYLE = """
#browser .grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(16rem,1fr));gap:1rem}
#browser figure{margin:0;padding:.7rem;border:1px solid #ddd;border-left:6px solid #c33;border-radius:4px}
#browser figure.right{border-left-color:#2a7}
#browser figure div{display:flex;gap:.4rem;flex-wrap:wrap}
#browser img{width:min(100%,224px);image-rendering:pixelated}
#browser .photo{position:relative;width:min(100%,224px)}#browser .photo img{width:100%;display:block}
#browser .mark{position:absolute;box-sizing:border-box;border:2px solid #1a9c5b;font:10px/1 sans-serif;color:#fff;
text-shadow:0 0 2px #000,0 0 2px #000;overflow:hidden}#browser .mark.predicted{border-color:#e0571b;border-style:dashed}
#browser p{margin:.3rem 0}.score{font-variant-numeric:tabular-nums;color:#555}.what{font-size:.85em;color:#777}
#browser form{display:flex;gap:1rem;flex-wrap:wrap;align-items:end;margin-bottom:1rem}
#browser figure.open{grid-column:1/-1}#browser iframe{width:100%;height:80vh;border:1px solid #ddd}
#browser label{display:flex;flex-direction:column;font-size:.8em;color:#555}
"""
SCRIPT = """
const data = JSON.parse(document.getElementById('examples').textContent);
const form = document.querySelector('#browser form'), grid = document.querySelector('#browser .grid');
const more = document.getElementById('more'), count = document.getElementById('count');
const filters = ['model', 'task', 'piece', 'outcome'], page = 48;
let shown = page;
const value = (e, f) => f === 'outcome' ? (e.right ? 'right' : 'wrong') : e[f];
const wanted = f => form.elements[f].value;
const fits = (e, but) => filters.every(f => f === but || !wanted(f) || value(e, f) === wanted(f)) &&
  e.lines.some(l => l[1].toLowerCase().includes(wanted('text').toLowerCase()));
function element(parent, tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return parent.appendChild(made);
}
function card(e) {
  const figure = element(grid, 'figure', value(e, 'outcome')), pictures = element(figure, 'div');
  for (const i of e.images) {
    if (data.pictures[i].src) {
      const photo = element(pictures, 'span', 'photo'), img = element(photo, 'img');
      img.src = data.pictures[i].src; img.alt = data.pictures[i].name;
      for (const [name, box] of e.marks || []) mark(photo, name, box.map(x => 100 * Math.min(Math.max(x, 0), 1)));
    } else element(pictures, 'p', 'what', 'image ' + data.pictures[i].name + ' is no longer there, or damaged');
  }
  for (const [kind, text, score] of e.lines) {
    const line = element(figure, 'p'); element(line, 'b', '', kind); line.append(' ' + text + ' ');
    element(line, 'span', 'score', score.toFixed(3));
  }
  element(figure, 'p', 'what', [e.model, e.task, e.piece, e.what].filter(Boolean).join(' / '));
  if (e.page) look(figure, e.page);
}
function mark(photo, name, [x0, y0, x1, y1]) {
  const box = element(photo, 'i', 'mark ' + name, name);
  Object.assign(box.style, {left: x0 + '%', top: y0 + '%', width: (x1 - x0) + '%', height: (y1 - y0) + '%'});
}
function look(figure, page) {
  const details = element(figure, 'details');
  element(details, 'summary', '', 'where it looks');
  details.addEventListener('toggle', () => {  // the page is read when it is asked for
    figure.classList.toggle('open', details.open);
    if (!details.open || details.querySelector('iframe')) return;
    const link = element(details, 'a', '', 'in a tab of its own'); link.href = page;
    const frame = element(details, 'iframe'); frame.src = page; frame.title = 'where it looks';
  });
}
function options(f) {
  const select = form.elements[f], before = select.value;
  const values = [...new Set(data.examples.filter(e => fits(e, f)).map(e => value(e, f)))].sort();
  if (before && !values.includes(before)) values.push(before);
  select.replaceChildren();
  for (const v of ['', ...values]) { const o = element(select, 'option', '', v || 'all'); o.value = v; }
  select.value = before;
}
function draw() {
  filters.forEach(options);
  const found = data.examples.filter(e => fits(e));
  grid.replaceChildren();
  found.slice(0, shown).forEach(card);
  const right = found.filter(e => e.right).length;
  count.textContent = found.length + ' examples, ' + right + ' right, ' + (found.length - right) + ' wrong';
  more.hidden = found.length <= shown;
}
function read() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const f of [...filters, 'text']) {
    const field = form.elements[f], v = state.get(f) || '';
    if (field.tagName === 'SELECT' && v && ![...field.options].some(o => o.value === v)) {
      const o = element(field, 'option', '', v); o.value = v;
    }
    field.value = v;
  }
  draw();
}
form.addEventListener('input', () => {
  shown = page;
  const state = new URLSearchParams();
  for (const f of [...filters, 'text']) if (wanted(f)) state.set(f, wanted(f));
  history.replaceState(null, '', '#' + state);
  draw();
});
form.addEventListener('submit', e => e.preventDefault());
more.addEventListener('click', () => { shown += page; draw(); });
window.addEventListener('hashchange', read);
read();
"""


class Pictures:
    """Thumbnails as data addresses, each image once however many examples show it."""

    def __init__(self) -> None:
        self.items: list[dict[str, str]] = []
        self._place: dict[tuple[str, Path | None, CropBox | None, tuple[DataSet, ...]], int] = {}

    def add(
        self, name: str, folder: Path | None, box: CropBox | None, data_sets: tuple[DataSet, ...] = DATA_SETS
    ) -> int:
        """Place of the image in `items`; `folder` None: it is not known where it lies."""
        key = (name, folder, box, data_sets)
        if key not in self._place:
            self._place[key] = len(self.items)
            self.items.append({"name": name, "src": _thumbnail(*key)})
        return self._place[key]


def records_of(
    model: str, folders: Iterable[Path], pictures: Pictures, per_side: int, pages: Mapping[Path, Pages] = NO_PAGES
) -> list[Row]:
    """The chosen examples of a model's folders of results, as the script reads them; those with a `page` come first."""
    records = []
    for folder in folders:
        figures, of_card = read_json(folder / "metrics.json"), pages.get(folder, {})
        chosen = choose(cards_of(folder), per_side)
        chosen += [card for card in of_card if card not in chosen]
        chosen.sort(key=lambda card: card not in of_card)
        records += [_record(model, figures, card, pictures, of_card.get(card, "")) for card in chosen]
    return records


def choose(cards: Sequence[Card], per_side: int = PER_SIDE) -> list[Card]:
    """Of each piece at most `per_side` right and `per_side` wrong ones, spread evenly over the file; 0: all."""
    if not per_side:
        return list(cards)
    sides: dict[tuple[str, bool], list[Card]] = defaultdict(list)
    for card in cards:
        sides[card.piece, card.right].append(card)
    return [card for side in sides.values() for card in _spread(side, per_side)]


def browser(records: list[Row], pictures: Pictures) -> str:
    """The browser's part of a page: form, grid, data and script."""
    data = json.dumps({"examples": records, "pictures": pictures.items}, ensure_ascii=False)
    safe = data.replace("<", "\\u003c")  # no text can end the script element
    fields = "".join(f"<label>{name}<select name={name}><option value=''>all</select></label>" for name in FILTERS)
    return (
        f"<section id=browser><h2>Examples</h2><p>Green: the model is right. Scores are match probabilities "
        "(retrieval: match logits; RefCOCO: intersection over union). A part of each piece is shown, right and wrong "
        f"ones.</p><form>{fields}"
        "<label>text<input name=text type=search></label><output id=count></output></form><div class=grid></div>"
        f"<button id=more type=button>more</button></section><script type='application/json' id=examples>{safe}"
        f"</script><script>{SCRIPT}</script>"
    )


def _spread(cards: Sequence[Card], number: int) -> list[Card]:
    if len(cards) <= number:
        return list(cards)
    return [cards[i * len(cards) // number] for i in range(number)]


def _record(model: str, figures: Row, card: Card, pictures: Pictures, page: str) -> Row:
    known = figures.get("protocol", {}).get("images")
    images, data_sets = Path(known) if known else None, task_named(figures["task"]).data_sets
    task = figures["task"] + (f" {figures['split']}" if figures.get("split", "test") != "test" else "")
    return (
        {
            "model": model,
            "task": task,
            "piece": card.piece,
            "right": card.right,
            "images": [pictures.add(name, images, card.box, data_sets) for name in card.images],
            "lines": card.lines,
            "what": card.what,
        }
        | ({"page": page} if page else {})
        | ({"marks": card.marks} if card.marks else {})
    )


def _thumbnail(name: str, folder: Path | None, box: CropBox | None, data_sets: tuple[DataSet, ...]) -> str:
    """A data address, or "" where the image is no longer there, or no longer whole."""
    path = find_image(folder, name, data_sets) if folder is not None and folder.is_dir() else None
    if path is None:
        return ""
    photo = Photo(path, box)
    try:
        small = photo.open(photo.read(), DataConfig.max_pixels)
    except UserError:  # it was whole when it was scored
        return ""
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def plot_tag(path: Path) -> str:
    """An `<img>` that holds the PNG."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img class=plot alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}">'
