"""Odd but well-formed annotations: each loader gives what stood in the file, or one UserError."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.benchmark_records import FORMATS, ROWS

from relvlm.errors import UserError
from relvlm.evals.tasks.registry import TASKS

SETTINGS = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FEW = settings(SETTINGS, max_examples=10)
TEXT = st.text(max_size=8) | st.sampled_from(
    [
        "",
        " ",
        "a\nb",
        "a\u2028b",
        "\ufeffa",
        "a\0",
        "\ud800",
        "nan",
        "1.0",
        "0",
        "True",
        "../a.jpg",
        "/a",
        "é" * 300,
        '"',
        ",",
    ]
)
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats()
    | TEXT
    | st.sampled_from([0.0, 1.0, 3.0])
)
ODD = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))


@st.composite
def odd(draw: st.DrawFn, record: dict[str, Any]) -> dict[str, Any]:
    """The record with up to two fields that are another value, absent, or under another name; and perhaps a new one."""
    made = json.loads(json.dumps(record))
    for _ in range(draw(st.integers(0, 2))):
        where: Any = made
        field = draw(st.sampled_from(sorted(record)))
        if isinstance(where.get(field), (dict, list)) and where[field] and draw(st.booleans()):
            where = where[field]
            field = draw(st.sampled_from(sorted(where) if isinstance(where, dict) else range(len(where))))
        if isinstance(where, dict) and draw(st.integers(0, 5)) == 0:
            where.pop(field, None)
        elif isinstance(where, list) or field in where:
            where[field] = draw(ODD)
    if draw(st.integers(0, 3)) == 0:
        made[draw(TEXT)] = draw(ODD)
    return made


def strings(value: Any) -> set[str]:
    """Every string in a tree, of keys too."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return strings([*value, *value.values()])
    return set().union(*map(strings, value)) if isinstance(value, list) else set()


def whole_numbers(value: Any) -> set[str]:
    """The whole numbers in a tree, as they name photos."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {str(value)}
    if isinstance(value, dict):
        return whole_numbers(list(value.values()))
    return set().union(*map(whole_numbers, value)) if isinstance(value, list) else set()


def write(folder: Path, name: str, records: list[dict[str, Any]], data: st.DataObject) -> Path:
    """As the benchmark has it: lines, a table, a list, an object, or within `images`."""
    path = folder / name
    if path.suffix == ".csv":
        buffer = io.StringIO(newline="")
        fields = list(dict.fromkeys(f for r in records for f in r))
        writer = csv.writer(buffer)
        writer.writerows([fields, *([r.get(f, "") for f in fields] for r in records)])
        text = buffer.getvalue()
    elif path.suffix == ".jsonl":
        text = "".join(json.dumps(r) + "\n" for r in records)
    elif path.stem.startswith("finetune"):
        boxes = [{"image_id": 1, "bbox": [0, 0, 2, 2]}]
        text = json.dumps({"images": records, "annotations": boxes})
    elif any("[0]" in r or "[1]" in r for r in records):
        text = json.dumps([[value for _, value in sorted(r.items())] for r in records])
    elif "sentences" in FORMATS["karpathy"][2] and any("sentences" in r or "split" in r for r in records):
        text = json.dumps({"images": records, "dataset": "coco"})
    elif any("foil" in r or ("negative_caption" in r and "caption2" not in r) for r in records):
        text = json.dumps({f"k{i}": r for i, r in enumerate(records)})
    else:
        text = json.dumps(records)
    solution = ["0,T0_I0 > T1_I0 & T1_I1 > T0_I1,,object", "1,T1_I0 > T0_I0 & T0_I1 > T1_I1,,object"]
    lines = ["idx,Text,Image,category", *(solution[i % 2] for i in range(len(records)))]
    (folder / "sim_solution.csv").write_text("\n".join(lines))
    mark = "\ufeff" if data.draw(st.booleans()) else ""
    path.write_bytes((mark + text).encode("utf-8", "surrogatepass"))
    return path


def loaded(task: str, path: Path) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """Texts, names of photos, and rows of scores.jsonl to come."""
    found = TASKS[task].load(path)  # type: ignore[attr-defined]
    if hasattr(found, "texts"):
        return list(found.texts), list(found.images), []
    return [p.text for p in found.pairs], [p.image for p in found.pairs], [p.row for p in found.pairs]


@pytest.mark.parametrize("name", FORMATS)
@SETTINGS
@given(data=st.data())
def test_what_is_loaded_stood_in_the_file(tmp_path: Path, name: str, data: st.DataObject) -> None:
    task, file, record = FORMATS[name]
    records = data.draw(st.lists(odd(record), max_size=3))
    path = write(tmp_path, file, records, data)
    (tmp_path / "test_split.json").write_text(json.dumps([r.get("image_id", 1) for r in records] or [1]))
    try:
        texts, images, rows = loaded(task, path)
    except UserError as error:
        assert str(tmp_path) in str(error)
        return
    said = (
        strings(records) if path.suffix != ".csv" else {str(v) for r in records for v in r.values()} | strings(records)
    )
    names = said | whole_numbers(records) | {f"{n}.jpg" for n in said | whole_numbers(records)}
    names |= {text.rpartition("/")[2] for text in said}
    assert texts and all(type(t) is str and t.strip() and t in said for t in texts)
    assert all(type(i) is str and (i in names or i.rpartition("/")[2] in names) for i in images)
    assert not any(i.startswith("/") or ".." in i.split("/") for i in images)
    assert all(type(row["label"]) is (int if task == "vsr" else str) for row in rows)
    for row in rows:
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize("name", FORMATS)
def test_a_genuine_record_is_loaded(tmp_path: Path, name: str) -> None:
    task, file, record = FORMATS[name]

    class Plain:
        def draw(self, _: object) -> bool:
            return False

    path = write(tmp_path, file, [record], Plain())  # type: ignore[arg-type]
    (tmp_path / "test_split.json").write_text("[1]")
    texts, images, _ = loaded(task, path)
    assert texts and images and set(texts) <= strings(record)


@pytest.mark.parametrize("task", TASKS)
@FEW
@given(tree=ODD, suffix=st.sampled_from([".json", ".jsonl", ".csv"]))
def test_any_json_is_refused_with_the_files_name(tmp_path: Path, task: str, tree: Any, suffix: str) -> None:
    path = tmp_path / f"odd{suffix}"
    path.write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"odd\."):
        TASKS[task].load(path)  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", TASKS)
@FEW
@given(content=st.binary(max_size=40))
def test_any_bytes_are_refused_with_the_files_name(tmp_path: Path, task: str, content: bytes) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"odd\.json"):
        TASKS[task].load(path)  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", ROWS)
@SETTINGS
@given(data=st.data())
def test_odd_scores_give_figures_in_percent_or_one_error(tmp_path: Path, task: str, data: st.DataObject) -> None:
    shown = {} if task == "coco" else {"image": "a.jpg", "text": "a dog"}
    rows = [{**row, "score": 0.25 * i, **shown} for i, row in enumerate(ROWS[task])]
    rows[0] = data.draw(odd(rows[0]))
    path = tmp_path / "scores.jsonl"
    path.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode("utf-8", "surrogatepass"))
    (tmp_path / "gallery.json").write_text(json.dumps({"images": ["a", "b"], "texts": ["x", "y"]}))
    try:
        found = TASKS[task].rescore(path, None)
        outcomes, cards = TASKS[task].outcomes(path), TASKS[task].cards(tmp_path)
    except UserError as error:
        assert str(tmp_path) in str(error) or str(error).startswith("scores: ")
        return
    assert 0 <= found["overall"] <= 100 and len(outcomes.units) == len(cards)
    json.dumps([found, [card.lines for card in cards]], allow_nan=False)
