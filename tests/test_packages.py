"""Two distributions with one version, and extras that name all that their commands import."""

import re
import tomllib

import pytest
import yaml
from support.extras import EXTRAS, ROOT, WHOLE, command, distributions, others, run_with

from relvlm.cli import COMMANDS

KERNELS = tomllib.loads((ROOT / "kernels/pyproject.toml").read_text())
COMMANDS_OF = {
    "eval": ("eval", "convert", "report", "soup", "pareto", "publish", "explain", "score", "search", "demo", "config"),
    "train": ("train", "submit", "data", "plan", "runs", "compare", "config"),
}
LATE = {"eval": "", "train": "import deepspeed, webdataset, relvlm.engine.loop, relvlm.engine.distributed\n"}


def test_the_version_has_a_place_in_the_changelog():
    version, text = (ROOT / "kernels/VERSION").read_text().strip(), (ROOT / "CHANGELOG.md").read_text()
    assert re.match(rf"# Changelog\n+## {re.escape(version)} \((unreleased|\d{{4}}-\d\d-\d\d)\)\n", text)


def test_both_distributions_have_their_version_from_one_file():
    folders = {".": WHOLE, "kernels": KERNELS}
    files = [ROOT / where / of["tool"]["setuptools"]["dynamic"]["version"]["file"] for where, of in folders.items()]
    assert files == [ROOT / "kernels/VERSION"] * 2
    assert all(of["project"]["dynamic"] == ["version"] for of in folders.values())


def test_what_the_kernels_need_the_whole_needs():
    assert set(KERNELS["project"]["dependencies"]) <= set(WHOLE["project"]["dependencies"])
    assert KERNELS["build-system"] == WHOLE["build-system"]
    assert KERNELS["project"]["requires-python"] == WHOLE["project"]["requires-python"]
    assert (ROOT / "kernels/LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_all_is_every_extra_of_users():
    assert distributions("all") == {name for each in EXTRAS if each != "dev" for name in distributions(each)}


@pytest.mark.parametrize("extra", COMMANDS_OF)
def test_commands_import_only_what_their_extra_names(extra):
    blocked = others(extra)
    assert blocked and not {"torch", "numpy"} & {*blocked}
    helps = "".join(command(name, "--help") for name in COMMANDS_OF[extra])
    said = run_with(extra, helps + LATE[extra])
    assert re.findall(r"^usage: relvlm (\w+)", said, re.M) == [*COMMANDS_OF[extra]]


def test_every_command_is_of_an_extra():
    assert {name for commands in COMMANDS_OF.values() for name in commands} == {*COMMANDS}


def test_a_release_builds_both_and_is_held_to_the_version():
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    steps = "\n".join(step.get("run", "") for step in jobs["build"]["steps"])
    cibuildwheel = "cibuildwheel --config-file kernels/pyproject.toml --output-dir dist"
    for builder in ("build --sdist --outdir dist", cibuildwheel):
        assert all(f"python -m {builder} {folder}\n" in f"{steps}\n" for folder in ("kernels", "."))
    assert 'test "v$(cat kernels/VERSION)" = "$GITHUB_REF_NAME"' in steps
