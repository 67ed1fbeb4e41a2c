"""A model card: what a model is, what it was trained on and how, its figures with intervals, its limits.

Everything in it is read: the checkpoint's config.json and run.json, the manifests of shard sets that are still there,
the results of `relvlm eval`. README.md begins with the metadata that the Hub reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from relvlm.config.schema import DataConfig
from relvlm.data.shards.manifest import read_manifest
from relvlm.errors import UserError
from relvlm.evals.figures.main_table import Cell, ModelRows
from relvlm.evals.files import Row
from relvlm.evals.tables import markdown
from relvlm.evals.tasks.registry import task_named, titles
from relvlm.evals.tasks.retrieval import RetrievalTask

SECTIONS = ("captions", "entities", "graphs", "joint")  # of the config's data
METHODS = {  # by model.localisation, model.relations (paper, table 1)
    (False, False): "ALBEF",
    (True, False): "X-VLM",
    (False, True): "ReALBEF",
    (True, True): "ReX-VLM",
}
RUN = "run.json"
GAPS = {  # in metrics.json
    "images_missing": "images were missing; the figures are those of the rest.",
    "images_damaged": "images were damaged; the figures are those of the rest.",
    "images_substituted": "images were found under another name.",
    "texts_cut": "texts were longer than the model takes, and cut.",
}
GENERATED = " (RelWorld)"
PAPER = "https://arxiv.org/abs/2305.14281"
USE = """After `pip install 'relvlm[eval]'`:

```python
import relvlm.hub  # the classes; a checkpoint brings no code
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained({where!r}).eval()
processor = AutoProcessor.from_pretrained({where!r})
inputs = processor(images=["photo.jpg"], text=["a man riding a horse"])
print(model(**inputs).match_logits.softmax(-1)[:, 1])  # that the text is true of the photo
```"""


@dataclass(frozen=True)
class Facts:
    """What a card tells. `where`: a name to load it by; `run`: the run's config, {} where none is known.

    `results`: figures by task, as metrics.json has them; `rows`: their cells of the main table.
    """

    where: str
    licence: str
    description: Mapping[str, Any]
    run: Mapping[str, Any]
    parameters: int
    results: Mapping[str, Row]
    rows: ModelRows

    @property
    def method(self) -> str:
        """One of the paper's four."""
        model = self.description["model"]
        return METHODS[bool(model.get("localisation", True)), bool(model.get("relations", True))]

    @property
    def cells(self) -> dict[str, Cell]:
        """In the main table's order; what RelWorld wrote in a benchmark's format is no figure of that benchmark."""
        found = {title: self.rows.cells[title] for title in titles() if title in self.rows.cells}
        return {title + GENERATED * is_generated(self.results[c.task]): c for title, c in found.items()}


def is_generated(figures: Row) -> bool:
    """Whether an evaluation is of RelWorld's files, as far as they are still there."""
    annotations = Path(figures.get("protocol", {}).get("annotations", ""))
    return any((folder / "world.json").is_file() for folder in annotations.parents[:2])


def run_config(checkpoint: Path) -> dict[str, Any]:
    """The config in a checkpoint's run.json; {} where it has none. UserError where it cannot be read."""
    path = checkpoint / RUN
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text())["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not readable: {error} (remove it, and the card tells no recipe)") from error


def card(facts: Facts) -> str:
    """The text of README.md."""
    front = yaml.safe_dump(_metadata(facts), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{front}---\n\n# {facts.description.get('name', facts.where)}",
        _introduction(facts),
        USE.format(where=facts.where),
        f"## Training data\n\n{_data(facts)}",
        f"## Recipe\n\n{_recipe(facts)}",
        f"## Results\n\n{_results(facts)}",
        "## Limits\n\n" + "\n".join(f"- {line}" for line in _limits(facts)),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(facts: Facts) -> dict[str, Any]:
    tags = ["relvlm", facts.method.lower(), "vision-language", "image-text-matching", "image-text-retrieval"]
    found: dict[str, Any] = {"license": facts.licence, "language": ["en"], "library_name": "relvlm", "tags": tags}
    sets = dict.fromkeys(name for _, name, _ in datasets(facts.description["data"]))
    if sets:
        found["datasets"] = list(sets)
    if facts.cells:
        found["metrics"] = list(dict.fromkeys(_metric(cell) for cell in facts.cells.values()))
        found["model-index"] = [{"name": facts.description.get("name", facts.where), "results": _index(facts)}]
    return found


def _index(facts: Facts) -> list[dict[str, Any]]:
    return [
        {
            "task": {"type": "image-text-matching"},
            "dataset": {"type": cell.task, "name": title},
            "metrics": [{"type": _metric(cell), "name": cell.figure, "value": round(cell.value, 2)}],
        }
        for title, cell in facts.cells.items()
    ]


def _metric(cell: Cell) -> str:
    task = task_named(cell.task.removesuffix("_dev"))
    return "recall" if isinstance(task, RetrievalTask) else "accuracy"


def datasets(data: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(section, name, records) of each shard set; its source names it where its manifest is still there."""
    for section in SECTIONS:
        for dataset in data.get(section, []):
            path = Path(dataset["path"])
            try:
                manifest = read_manifest(path)
            except UserError:
                yield section, path.name, ""
                continue
            samples = manifest.get("totals", {}).get("samples", "")
            yield section, str(manifest.get("source", path.name)), f"{samples:,}" if samples else ""


def _introduction(facts: Facts) -> str:
    model, step = facts.description["model"], facts.description["step"]
    size, encoder = model.get("image_size"), model.get("vision", {}).get("kind", "vit")
    lines = [
        f"{facts.method} ([paper]({PAPER})), {facts.parameters:,} parameters, for photos of {size} x {size} pixels; "
        f"vision encoder {encoder}."
    ]
    official = facts.description.get("official")
    if official:
        lines.append(f"Converted from an official {official['family']} checkpoint (SHA-256 {official['sha256']}).")
    elif step:
        lines.append(f"The weights after {step:,} steps of pretraining.")
    relations = facts.description["relations"]
    if relations:
        lines.append(f"Its relation head knows {len(relations)} relations (`relations` in config.json).")
    return " ".join(lines)


def _data(facts: Facts) -> str:
    lines = [["what it gives", "data set", "records"], *map(list, datasets(facts.description["data"]))]
    return markdown(lines) if len(lines) > 1 else "Not known from this checkpoint."


def _recipe(facts: Facts) -> str:
    """What differs between trainings of one model; all of it is in the run's config.yaml."""
    if not facts.run:
        return "Not known from this checkpoint."
    run, data = facts.run, facts.run["data"]
    drawn = {kind: ratio for kind, ratio in data["ratio"].items() if ratio}
    batch = {kind: size for kind, size in data["batch"].items() if kind in drawn}
    start = {key: value for key, value in run["init"].items() if value}
    told = {
        "steps": f"{run['steps']:,}",
        "starts from": _listed({key: value if value == "random" else Path(value).name for key, value in start.items()}),
        "global batch": _listed(batch),
        "steps of each kind, relative": _listed(drawn),
        "AdamW": _listed({key: run["optim"][key] for key in ("lr", "betas", "weight_decay", "warmup_steps", "decay")}),
        "dtype": run["dtype"],
        "seed": str(run["seed"]),
    }
    return markdown([["setting", "value"], *([key, value] for key, value in told.items())])


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _results(facts: Facts) -> str:
    if not facts.cells:
        return "Not evaluated."
    lines = [["benchmark", "%", "95% interval", "chance", "n"]]
    for title, cell in facts.cells.items():
        interval = f"{cell.interval[0]:.1f}-{cell.interval[1]:.1f}" if cell.interval else ""
        chance = "" if cell.chance is None else f"{cell.chance:.1f}"
        lines.append([title, f"{cell.value:.1f}", interval, chance, str(cell.n)])
    rules = "\n".join(f"- {task}: {figures['rule']}" for task, figures in facts.results.items())
    note = "Zero-shot; intervals by bootstrap of examples, or of images in retrieval. The protocols:"
    return f"{markdown(lines)}\n\n{note}\n\n{rules}"


def _limits(facts: Facts) -> Iterator[str]:
    size = facts.description["model"].get("image_size")
    yield f"A photo is squeezed into a square of {size} pixels, whatever its shape; small things are lost."
    yield f"Texts are English, lower-cased, without punctuation, and cut at {DataConfig.max_words} words."
    yield "What its training data show rarely, or one-sidedly, it knows badly, or with that side's bias."
    if facts.description["relations"]:
        yield "The relation head knows the relations in its vocabulary and takes every other one for one of them."
    new = facts.description.get("official", {}).get("new")
    if new:
        yield f"Without trained weights, at random: {', '.join(new)}."
    for task, figures in facts.results.items():
        yield from (f"{task}: {words}" for words in _gaps(figures))
    if not facts.results:
        yield "No figure of it is known: evaluate it before it is used (`relvlm eval`)."


def _gaps(figures: Row) -> Iterator[str]:
    """Where an evaluation is not of the whole benchmark."""
    if figures.get("protocol", {}).get("limit"):
        yield f"only the first {figures['protocol']['limit']} examples of each file were scored."
    for name, words in GAPS.items():
        if figures.get(name):
            yield f"{figures[name]} {words}"
