"""What every test may ask for."""

import argparse
import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # before anything imports triton: its kernels run on the CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).resolve().parents[1]
LAUNCHER = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]


def pytest_report_header() -> str:
    """The instructions that results are rounded by."""
    import torch

    from relvlm_kernels import backends

    cpu = backends.BACKENDS["cpu"]
    kernels = f"not usable: {cpu.missing}" if cpu.missing else cpu.ops.description()
    return f"instructions: torch {torch.backends.cpu.get_cpu_capability()}; cpu kernels {kernels}"


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where there are several processes: what goes together, and files with slow tests first, lest one be left over."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        group = _group(item)
        if group:
            item.add_marker(pytest.mark.xdist_group(group))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def _group(item: pytest.Item) -> str:
    """Of the tests that one process runs: those that share what their module makes once; those of the one cluster."""
    if item.get_closest_marker("slurm"):
        return "slurm"
    fixtures = item._fixtureinfo.name2fixturedefs.values() if isinstance(item, pytest.Function) else ()
    return item.path.stem if any(found[-1].scope == "module" for found in fixtures) else ""


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data and reference vectors (RELVLM_TEST_DATA, default ../shared)."""
    folder = Path(os.environ.get("RELVLM_TEST_DATA", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no test data in {folder} (set RELVLM_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def relworld(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small RelWorld: shard sets, vocabulary, relations and benchmarks."""
    from relvlm.relworld import build

    out = tmp_path_factory.mktemp("world") / "relworld"
    parser = argparse.ArgumentParser()
    build.add_arguments(parser)
    options = ["--preset", "mini", "--images", "400", "--benchmark-pairs", "40", "--workers", "1"]
    build.main(parser.parse_args(["--out", str(out), *options]))
    return out


@pytest.fixture(scope="session")
def tiny(relworld: Path) -> list[str]:
    """Arguments of `relvlm train`: the miniature ReX-VLM on the small RelWorld, a few steps of a small batch."""
    data = [f"data.{kind}=[{{path: {relworld / kind}}}]" for kind in ("captions", "entities")]
    data += [f"data.graphs=[{{path: {relworld / 'graphs'}, block: 2}}]"]
    data += [f"data.vocab={relworld / 'vocab.txt'}", f"data.relations={relworld / 'relations.txt'}"]
    sizes = ["data.batch={captions: 8, entities: 8, mrc: 8, vsg: 8}", "steps=40", "checkpoint.every=5"]
    sizes += ["data.negative_pool={captions: 2, entities: 1, vsg: 2, joint: 2}"]  # for 1, 2 and 4 ranks
    return ["--config", str(ROOT / "configs/mini/rex_vlm.yaml"), *data, *sizes, "log_every=3"]


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A `scontrol show hostnames` that knows the node lists of support/recorded_slurm.py, first on PATH."""
    script = tmp_path / "scontrol"
    script.write_text(
        "#!/bin/sh\n"
        '[ "$1 $2" = "show hostnames" ] || exit 9\n'
        'case $3 in "node[1-2]") printf "node1\\nnode2\\n" ;; node2) echo node2 ;; *) exit 1 ;; esac\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return script


@pytest.fixture
def environment(monkeypatch):
    """Make the process' environment hold these variables and no other of Slurm or a launcher."""

    def become(variables: dict[str, str]) -> None:
        for name in [n for n in os.environ if n.startswith("SLURM")] + LAUNCHER:
            monkeypatch.setenv(name, "")  # so that what rendezvous sets is undone afterwards
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return become
