"""RelWorld's benchmarks, all of them, scored as a suite and reported beside published figures."""

from pathlib import Path

from relvlm.evals.evaluate import evaluate_suite, rescore
from relvlm.evals.reporting.reference import BUILTIN
from relvlm.evals.reporting.report import report
from relvlm.evals.tasks.registry import TASKS
from relvlm.relworld.build import write_benchmarks
from relvlm.relworld.config import world_config

ABSENT = {"winoground", "aro", "choice", "flickr30k"}


def test_the_whole_suite_is_scored_rescored_and_reported(tmp_path: Path, model) -> None:
    write_benchmarks(tmp_path / "benchmarks", world_config("mini", benchmark_pairs=40), seed=0)
    found = evaluate_suite(model, model.tokenizer, tmp_path / "benchmarks", tmp_path / "run/eval")
    assert set(found) == TASKS.keys() - ABSENT
    for task, figures in found.items():
        assert 0 <= figures["overall"] <= 100 and figures["images_missing"] == 0
        again = rescore(task, tmp_path / "run/eval" / task / "scores.jsonl", _annotations(tmp_path, task))
        assert again == {name: figures[name] for name in again}
    assert (found["whatsup"]["chances"]["A"], found["cola"]["chance"]["image"]) == (25, 25)
    report([tmp_path / "run"], tmp_path / "report", ["tiny"], reference=BUILTIN)
    text = (tmp_path / "report/report.md").read_text()
    section = text.partition("## Beside published figures")[2].partition("\n## ")[0]
    assert "whatsup (Kamath" in section and "| X-VLM 16M" in section and "| **tiny**" in section


def _annotations(tmp_path: Path, task: str) -> Path:
    folder = tmp_path / "benchmarks" / task
    return folder / "svo_probes.csv" if task == "svo" else folder
