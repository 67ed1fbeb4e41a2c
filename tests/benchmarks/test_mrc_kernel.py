"""The benchmark of region attention: all ways agree, what is wrong or fails is a row, and every row is written."""

import json
from pathlib import Path

import pytest
from support.programs import ROOT, put_fault, run

STAGES = ("forward", "backward", "branch")
pytestmark = pytest.mark.slow


def measured(folder: Path, root: Path = ROOT) -> tuple[list[dict], str]:
    """The shapes' rows, and the table beside them."""
    path = folder / "out.json"
    options = ("--shapes", "toy", "--threads", 1, "--repeats", 1, "--json", path)
    done = run("benchmarks/mrc_kernel.py", *options, root=root)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(path.read_text())["shapes"], path.with_suffix(".md").read_text()


def test_every_way_agrees_and_is_measured_at_every_shape(tmp_path: Path) -> None:
    rows, table = measured(tmp_path)
    slower = [(row["shape"]["mean"], row["shape"]["dropout"]) for row in rows]
    assert slower == [(False, 0)] * 3 + [(True, 0), (True, 0.1)]
    for row in rows:
        assert row["wrong"] == {} == row["refused"]
        for cells in (row[stage] for stage in STAGES):
            assert cells.keys() == {"ours", "replicate", "packed mask"}
            assert all(cell["ms"] > 0 and "off" not in cell for cell in cells.values()), cells
    assert rows[0]["branch"]["replicate"]["peak_ratio"] > 1
    assert table.count("\n|") == 2 + 9 * len(rows) and "keys and values once per image" in table


def test_what_is_wrong_or_fails_is_a_row_and_the_rest_is_measured(tree: Path, tmp_path: Path) -> None:
    ways = tree / "benchmarks" / "mrc_ways.py"
    ours = "return region_attention(q, k, v, self.batch.regions"
    put_fault(ways, ours, ours.replace("k, v,", "k, v.detach() + 0 * v,"))  # no gradient of v
    failing = '    def attend(self, q, k, v):\n        raise MemoryError("full")\n'
    put_fault(ways, 'name = "replicate"\n', f'name = "replicate"\n\n{failing}')
    rows, table = measured(tmp_path, tree)
    plain, trained = rows[0], rows[-1]
    assert list(plain["wrong"]["ours"]["off"]) == ["dv"]
    assert plain["wrong"]["replicate"] == {"error": "MemoryError: full"}
    assert plain["backward"].keys() == {"ours", "packed mask"}
    assert trained["forward"]["replicate"] == {"error": "MemoryError: full"}  # where no agreement is asked for
    assert "ours: OFF from fp64: dv by 1.0e+00" in table and "MemoryError: full" in table


@pytest.mark.parametrize(("ways", "named"), [(["packedmask"], "packedmask"), (["flash", "packed mask"], "flash")])
def test_ways_that_are_not_there_are_refused_before_any_is_measured(ways: list[str], named: str) -> None:
    done = run("benchmarks/mrc_kernel.py", "--shapes", "toy", "--ways", *ways)
    assert done.returncode == 2 and not done.stdout
    assert f"--ways: {named}: expected some of ours, replicate, packed mask" in done.stderr


def test_a_file_of_results_may_have_a_folder_of_its_own(tmp_path: Path) -> None:
    options = ("--shapes", "toy", "--threads", 1, "--repeats", 1, "--ways", "replicate", "--no-branch")
    path = tmp_path / "not/there/out.json"
    done = run("benchmarks/mrc_kernel.py", *options, "--json", path)
    assert done.returncode == 0 and path.exists(), done.stderr[-3000:]
