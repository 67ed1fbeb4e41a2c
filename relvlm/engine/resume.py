"""What a run goes on from, and whether it is the same run: each difference to the checkpoint's is named.

What a field may do is said in its annotation (relvlm/config/ranges.py). Files count by content, not by path: `inputs`
has the hash of each vocabulary and shard set that is in use, by its dotted key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relvlm.config.keys import RESUME_WORDS, key_of, leaves
from relvlm.config.load import to_tree
from relvlm.config.ranges import Resume
from relvlm.config.schema import Config
from relvlm.config.tree import FAULTY, Faults, read_section
from relvlm.data.shards.address import place_of
from relvlm.data.shards.manifest import MANIFEST, read_manifest, shard_entries
from relvlm.errors import UserError
from relvlm.kinds import datasets_of
from relvlm.pretrained import read_description, relations_of

RUN = "run.json"  # beside the checkpoint's model: {"config": ..., "inputs": ...}
Inputs = dict[str, str]


@dataclass(frozen=True)
class Difference:
    """A key whose value, or the content that it names, is another than in the checkpoint."""

    key: str
    there: Any
    here: Any
    rule: Resume

    def __str__(self) -> str:
        return f"{self.key}: {self.there!r} there, {self.here!r} here"


def inputs_of(config: Config) -> Inputs:
    """Hashes of the words, relations and shard sets that a run of `config` reads; UserError where one is missing."""
    inputs = {"data.vocab": _hash(words(config.data.vocab_file))}
    relations = relations_of(config)
    if relations:
        inputs["data.relations"] = _hash(relations)
    for section in sorted({datasets_of(kind) for kind in config.data.drawn}):
        for place, dataset in enumerate(getattr(config.data, section)):
            path = place_of(dataset.path)
            entries = shard_entries(path / MANIFEST, read_manifest(path, config.data.cache.tries))
            lines = [f"{e.name} {e.sha256} {e.samples} {e.index}" for e in entries]
            inputs[f"data.{section}[{place}].path"] = _hash(lines)
    return inputs


def words(vocab: Path) -> list[str]:
    """The lines of a vocab.txt, as the tokenizer reads them."""
    with vocab.open(encoding="utf-8") as lines:
        return [line.rstrip("\n") for line in lines]


def description(config: Config, inputs: Inputs) -> str:
    """What is written as RUN."""
    return json.dumps({"config": to_tree(config), "inputs": inputs}, indent=1)


def check(checkpoint: Path, config: Config, inputs: Inputs) -> list[Difference]:
    """The differences that the run goes on with; UserError with a line for each one that it may not.

    Of a checkpoint without RUN, the model, data paths and words are compared, which its config.json has.
    """
    found = list(differences(*_saved(checkpoint), config, inputs))
    refused = [each for each in found if each.rule != "free" and not _is_accepted(each, config.resume.accept)]
    if refused:
        lines = "".join(f"\n  {each} ({_mend(each)})" for each in refused)
        raise UserError(f"{checkpoint}: was trained otherwise:{lines}")
    return found


def differences(saved: dict[str, Any], there: Inputs, config: Config, here: Inputs) -> Iterator[Difference]:
    """Between the saved tree with its inputs and the config's, in the order of the schema."""
    before, now = dict(leaves(saved)), dict(leaves(to_tree(config)))
    for name in dict.fromkeys([*now, *before]):
        other = name in there and name in here and there[name] != here[name]
        if name.startswith(tuple(saved)) and (other or before.get(name) != now.get(name)):
            yield _difference(name, before.get(name), now.get(name), there.get(name), here.get(name))


def _difference(name: str, before: Any, now: Any, there: str | None, here: str | None) -> Difference:
    key = key_of(name)
    rule = key.resume if key else "never"
    if key is None or not key.by_content:
        return Difference(name, before, now, rule)
    if there == here:  # the same files elsewhere, or files that neither reads
        return Difference(name, before, now, "free")
    return Difference(name, _named(before, there), _named(now, here), rule)


def _named(path: str | None, digest: str | None) -> str | None:
    return path if digest is None else f"{path} (sha256 {digest[:12]})"


def _is_accepted(each: Difference, accepted: Iterable[str]) -> bool:
    return each.rule == "accept" and any(re.match(rf"{re.escape(key)}(?:$|[.\[])", each.key) for key in accepted)


def _mend(each: Difference) -> str:
    if each.rule == "never":
        return f"{RESUME_WORDS[each.rule]}: that is another model or another start; set another `out`"
    return f"set it back, or take it with resume.accept=[{each.key}], or set another `out`"


def _saved(checkpoint: Path) -> tuple[dict[str, Any], Inputs]:
    """The checkpoint's config, with today's defaults for keys that it does not know, and its inputs."""
    about, path = read_description(checkpoint), checkpoint / RUN
    inputs: Inputs = {}
    if (checkpoint / "vocab.txt").exists():
        inputs["data.vocab"] = _hash(words(checkpoint / "vocab.txt"))
    if about["relations"]:
        inputs["data.relations"] = _hash(about["relations"])
    if not path.exists():
        return _complete({"model": about["model"], "data": about["data"]}, checkpoint / "config.json"), inputs
    try:
        run = json.loads(path.read_text())
        return _complete(run["config"], path), inputs | run["inputs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not readable: {error}") from error


def _complete(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    config = read_section(Config, tree, "", Faults(str(path)))
    if config is FAULTY:
        raise UserError(f"{path}: not the config of a run")
    return {name: value for name, value in dataclasses.asdict(config).items() if name in tree}


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_words(folder: Path, config: Config) -> list[str]:
    """Notes on a checkpoint that a new run starts from; UserError where its vocabulary has other words."""
    notes = []
    theirs = folder / "vocab.txt"
    if not theirs.exists():
        notes.append(f"{folder}: has no vocab.txt: whether its words are those of data.vocab is not known")
    elif words(theirs) != words(config.data.vocab_file):
        raise UserError(
            f"init.checkpoint: {theirs}: {_first_other(words(theirs), words(config.data.vocab_file))} in data.vocab, "
            f"{config.data.vocab}: each word would mean another (take the checkpoint's: data.vocab={theirs})"
        )
    there, here = read_description(folder)["relations"], relations_of(config)
    if there and here and there != here:
        notes.append(f"{folder}: {_first_other(there, here)} in data.relations: the MRC head starts anew")
    return notes


def _first_other(theirs: list[str], ours: list[str]) -> str:
    pairs = zip([*theirs, None], [*ours, None], strict=False)
    line, (there, here) = next((i, pair) for i, pair in enumerate(pairs, 1) if pair[0] != pair[1])
    return f"line {line} is {there!r}, {here!r}"
