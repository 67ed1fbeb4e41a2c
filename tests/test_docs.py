"""Documents are true: commands parse, paths and keys exist, Python runs or stands in the file that it walks through."""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from textwrap import dedent, indent

import pytest
import torch

from relvlm.cli import COMMANDS, WITH_OVERRIDES
from relvlm.config.keys import listing
from relvlm.config.load import load_config
from relvlm.data.cli import SOURCES
from relvlm.model import RelVLM
from relvlm.pretrained import write_alone

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "kernels/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
TOUR = ROOT / "docs/tour.ipynb"
MADE = {"data", "runs", "build", "out"}  # by users; no part of the repository
LAUNCHERS = {"python", "sbatch", "deepspeed", "bash", "torchrun"}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
PATH = re.compile(r"(?<![\w/.-])((?:\.?[\w*-]+/)+[\w.*-]*)(?![\w/])")


def blocks(text: str, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(text) if language in languages]


def commands(text: str) -> Iterator[list[str]]:
    """Of fenced shell: one a line or between `;`, without comments."""
    for block in blocks(text, "", "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=";")
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if word != ";":
                    words.append(word)
                elif words:
                    yield words[1:] if words[0] == "do" else words
                    words = []


def prose(text: str) -> str:
    return FENCE.sub("", text)


ALL = [
    pytest.param(words, id=f"{path.name}: {' '.join(words)[:60]}")
    for path in DOCUMENTS
    for words in commands(path.read_text())
]


def parsed(words: list[str]) -> argparse.Namespace:
    """`relvlm WORDS`, as the command line reads it."""
    name, *rest = words
    if name not in COMMANDS:
        raise ValueError(f"no command {name}")
    parser = argparse.ArgumentParser(f"relvlm {name}", exit_on_error=False)
    import_module(COMMANDS[name][0]).add_arguments(parser)
    return (parser.parse_intermixed_args if name in WITH_OVERRIDES else parser.parse_args)(rest)


def check(words: list[str]) -> None:
    """Raises, or exits with another status than 0, where `relvlm WORDS` is not understood."""
    args = parsed(words)
    if words[:2] == ["data", "build"]:
        parser = argparse.ArgumentParser()
        import_module(SOURCES[args.source][0]).add_arguments(parser)
        parser.parse_args(args.flags)
    if words[0] in WITH_OVERRIDES and args.config:
        load_config(ROOT / args.config, args.overrides)


def relvlm_words(words: list[str]) -> list[str] | None:
    """The arguments of `relvlm` that a command comes to, None where it is of something else."""
    if words[0] == "relvlm":
        return words[1:]
    if words[0] in LAUNCHERS and "relvlm/train.py" in words:
        return ["train", *words[words.index("relvlm/train.py") + 1 :]]
    if words[:2] == ["python", "slurm/submit.py"]:
        return ["submit", *words[2:]]
    return None


@pytest.mark.parametrize("words", ALL)
def test_a_command_parses(words, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    ours = relvlm_words(words)
    if ours is not None:
        try:
            check(ours)
        except SystemExit as end:
            assert end.code == 0, capsys.readouterr().err  # --help ends with 0
    elif words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        assert all(re.search(rf"^{re.escape(name)}:", (ROOT / "Makefile").read_text(), re.M) for name in targets)
    else:
        assert words[0] in LAUNCHERS | {"for", "done", "pip"}, "not a command that this test knows"
        check_flags(words)


def check_flags(words: list[str]) -> None:
    """Those of `python FILE` are named in the file."""
    if words[0] == "python" and words[1].endswith(".py"):
        text = (ROOT / words[1]).read_text()
        assert all(f'"{word}"' in text for word in words[2:] if word.startswith("--")), words


@pytest.mark.parametrize("words", ["train --confg configs/mini/albef.yaml", "data bild coco", "tran"])
def test_a_command_that_is_wrong_does_not(words):
    with pytest.raises((SystemExit, argparse.ArgumentError, ValueError)):
        check(words.split())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_a_sentence_are_there(path):
    for code in INLINE.findall(prose(path.read_text())):
        words = code.split()
        if words[0] == "relvlm" and len(words) > 1:
            assert words[1].split("|")[0] in {*COMMANDS, "COMMAND"}, code
        check_flags(words)
        if words[0] == "make" and len(words) > 1:
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), code


def paths_in(text: str) -> Iterator[str]:
    """What looks like a path of this repository: in code, and in links."""
    code = "\n".join([*INLINE.findall(prose(text)), *blocks(text, "", "bash")])
    for found in PATH.findall(code):
        first = found.split("/")[0]
        ours = (ROOT / first).is_dir() and first not in MADE | {"..", "."}
        if ours or found.endswith(".py"):
            yield found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_paths_are_there(path):
    text = path.read_text()
    missing = [name for name in paths_in(text) if not _exists(name)]
    missing += [name for name in LINK.findall(text) if not (path.parent / name).exists()]
    assert not missing


def _exists(name: str) -> bool:
    if "NAME" in name:
        return (ROOT / name).parent.parent.is_dir()
    return any(ROOT.glob(name)) if "*" in name else (ROOT / name).exists()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_config_keys_and_environment_variables_are_there(path):
    text, known = path.read_text(), listing()
    sections = r"(?:model|data|optim|checkpoint|init|low_resolution|momentum)"
    for code in INLINE.findall(prose(text)):
        key = re.fullmatch(rf"({sections}\.[a-z_.]+)(?:=.*)?", code)
        if key and not key[1].endswith((".py", ".json", ".safetensors", ".yaml", ".pt")):
            assert re.search(rf"^ *{re.escape(key[1])}\b", known, re.M), code
    for name in set(re.findall(r"RELVLM_[A-Z_]+\b", text)):
        assert name in SOURCE, name


def _source() -> str:
    places = ("relvlm", "kernels", "tests", "benchmarks")
    files = [file for place in places for file in (ROOT / place).rglob("*.py") if file != Path(__file__)]
    return "\n".join(file.read_text() for file in [*files, ROOT / "setup.py"])


SOURCE = _source()


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("adding_*.md")), ids=lambda path: path.name)
def test_code_of_a_walk_stands_in_the_repository(path):
    """Word for word; a line of dots leaves something out."""
    shown = blocks(path.read_text(), "python")
    assert shown
    for block in shown:
        for part in re.split(r"^ *\.\.\.\n", block, flags=re.M):
            assert any(indent(part, " " * depth).strip("\n") in SOURCE for depth in (0, 4)), part


# ---- what runs -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(relworld: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `make demo` leaves it, with random weights."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "data").mkdir()
    (folder / "runs").mkdir()
    (folder / "data/relworld").symlink_to(relworld)
    files = [f"data.vocab={relworld / 'vocab.txt'}", f"data.relations={relworld / 'relations.txt'}"]
    config = load_config(ROOT / "configs/mini/rex_vlm.yaml", files)
    words, relations = (len((relworld / name).read_text().split("\n")) - 1 for name in ("vocab.txt", "relations.txt"))
    torch.manual_seed(0)
    tensors = RelVLM(config.model, words, relations).state_dict()
    del tensors["mlm_head.decoder.weight"]  # tied
    write_alone(folder / "runs/demo", tensors, {}, config, {})
    return folder


@pytest.mark.parametrize("name", ["README.md", "kernels/README.md"])
def test_python_in_a_readme_runs(name, demo, monkeypatch):
    """One block after the other."""
    monkeypatch.chdir(demo)
    scope: dict[str, object] = {}
    found = blocks((ROOT / name).read_text(), "python")
    assert found
    for block in found:
        exec(block, scope)


RUN_CELLS = dedent("""
    import json, sys
    scope = {"__name__": "__main__"}
    for cell in json.load(open(sys.argv[1]))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), scope)
""")


def tour(folder: Path) -> str:
    """What the notebook prints, opened in `folder`; its cells run in order."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", RUN_CELLS, str(TOUR)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("with_demo", [True, False], ids=["after the demo", "on the spot"])
def test_the_tour_runs(with_demo, demo, tmp_path):
    folder = (demo if with_demo else tmp_path) / "docs"
    folder.mkdir()
    said = tour(folder)
    assert ("an untrained model" in said) == (not with_demo)
    assert "301,151 parameters" in said and said.count("true: ") + said.count("false:") == 6
    assert re.search(r"\| .* -> {'", said)  # a relation, and what the model takes it for


def test_the_tour_is_kept_without_outputs():
    cells = json.loads(TOUR.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and not any(cell["outputs"] or cell["execution_count"] for cell in code)
