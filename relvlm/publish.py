"""`relvlm publish`: a checkpoint as a folder for the Hub, with a model card made of its evaluations; and its upload."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import relvlm
from relvlm.errors import UserError
from relvlm.evals.figures.main_table import ModelRows
from relvlm.evals.reporting.card import SECTIONS, Facts, card, run_config
from relvlm.evals.reporting.run import Run, read_run
from relvlm.evals.scoring.weights import weights_hash
from relvlm.model import RelVLM
from relvlm.pretrained import (
    MODEL_TYPE,
    checkpoint_folder,
    description_text,
    read_description,
    read_tensors,
    write_tensors,
)
from relvlm.storage import sync, writing

VOCAB = "vocab.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `relvlm publish`."""
    parser.description = (
        "Write what others need of a checkpoint, without the state of its training: model.safetensors, config.json, "
        "vocab.txt and a model card, README.md, with its data, recipe, figures and limits. transformers' AutoModel and "
        "AutoProcessor load the folder after `import relvlm.hub`; relvlm.load does, too."
    )
    parser.epilog = (
        "examples:\n"
        "  relvlm publish runs/demo out/rex_vlm-mini --license apache-2.0 --evals runs/demo/eval\n"
        "  relvlm publish runs/albef_4m out/albef_4m --license bsd-3-clause --push NAME/albef_4m"
    )
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="a checkpoint folder, or a run (its latest)"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--license", required=True, help="of the weights, as the Hub names it (apache-2.0, other, ...)")
    parser.add_argument("--evals", type=Path, help="results of `relvlm eval` of this checkpoint, for the card")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the folder to this repository of the Hub")
    parser.add_argument("--private", action="store_true", help="with --push: a repository that others cannot see")


def main(args: argparse.Namespace) -> None:
    """Write the folder, then upload it; raises UserError for what the user can mend."""
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise UserError(f"{args.out}: already there (name another, or remove it)")
    if args.private and not args.push:
        raise UserError("--private: only of a repository (give --push OWNER/NAME, too)")
    out = args.out.resolve()  # `.` has no name, and a link is not to be replaced, but what it leads to
    folder = checkpoint_folder(args.checkpoint)
    if not (folder / VOCAB).is_file():
        raise UserError(f"{folder / VOCAB}: no such file (put the vocabulary that the model was trained with there)")
    model = relvlm.load(folder)
    description = {"model_type": MODEL_TYPE} | read_description(folder)
    rows, results = ModelRows("", {}), {}
    if args.evals:
        run = read_run(args.evals, out.name)
        check_model(run, model, args.evals)
        rows, results = run.rows, run.results
    count = sum(parameter.numel() for parameter in model.parameters())
    where = args.push or out.name
    text = card(Facts(where, args.license, description, run_config(folder), count, results, rows))
    write_folder(folder, out, without_places(description), text)
    print(f"{args.out}: {count:,} parameters, {len(rows.cells)} figures in README.md")
    if args.push:
        print(push(out, args.push, args.private))


def check_model(run: Run, model: RelVLM, folder: Path) -> None:
    """Raises UserError where there are no results, or of other weights."""
    if not run.results:
        raise UserError(f"--evals: {folder}: no metrics.json in it (relvlm eval --checkpoint ... --out {folder})")
    own = weights_hash(model)
    for task, figures in run.results.items():
        found = figures.get("protocol", {}).get("model", "")
        if found != own:
            raise UserError(f"--evals: {folder}: {task}: of other weights than the checkpoint's (evaluate this one)")


def without_places(description: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with names for paths: where the data lay on one's own machine is nobody's matter."""
    data = dict(description["data"])
    for key in ("vocab", "relations"):
        if data.get(key):
            data[key] = Path(data[key]).name
    for section in SECTIONS:
        if section in data:
            data[section] = [{**dataset, "path": Path(dataset["path"]).name} for dataset in data[section]]
    return {**description, "data": data}


def write_folder(folder: Path, out: Path, description: Mapping[str, Any], text: str) -> None:
    """Whole, or not at all."""
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with writing(out, needed=(folder / "model.safetensors").stat().st_size):
            temporary.mkdir(parents=True)
            write_tensors(temporary / "model.safetensors", read_tensors(folder / "model.safetensors"))
            (temporary / "config.json").write_text(description_text(dict(description)))
            shutil.copyfile(folder / VOCAB, temporary / VOCAB)
            (temporary / "README.md").write_text(text, encoding="utf-8")
            sync(temporary)
            temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def push(folder: Path, repository: str, private: bool) -> str:
    """Upload the folder in one commit; its address. UserError where the Hub refuses, or cannot be reached."""
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HTTPError
    except ImportError as error:
        raise UserError(f"--push: {error} (run: pip install 'relvlm[eval]')") from error
    api = HfApi()
    try:
        made = api.create_repo(repository, private=private or None, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=f"{folder.name}")
    except (OSError, ValueError, HTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--push: {repository}: {reason} (hf auth login; {folder} is written)") from error
    return str(made)
