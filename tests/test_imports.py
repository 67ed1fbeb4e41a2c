"""What import-linter's contracts (pyproject.toml) leave open: circles through a package's own __init__, and tests."""

import ast
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]


def reachable(graph: grimp.ImportGraph, start: str) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        new = graph.find_modules_directly_imported_by(ahead.pop()) - found
        found |= new
        ahead += new
    return found


def imported_names(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def test_no_module_imports_itself_through_others():
    """Imports within functions and for type annotations count too."""
    graph = grimp.build_graph("relvlm", "relvlm_kernels", cache_dir=None)
    assert [module for module in sorted(graph.modules) if module in reachable(graph, module)] == []


def test_no_test_but_the_benchmarks_own_imports_a_benchmark():
    benchmarks = {path.stem for path in (ROOT / "benchmarks").iterdir()}
    benchmarks -= {"support", "build"}  # lead to tests/support and the emulated CUDA's build
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path.parent.name != "benchmarks"]
    assert len(tests) > 50
    for file in tests:
        assert not {name.split(".")[0] for name in imported_names(file)} & {*benchmarks, "benchmarks"}, file
