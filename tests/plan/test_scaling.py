"""How many nodes a recipe is worth, and which numbers share its batches."""

from dataclasses import replace
from pathlib import Path

import pytest

from relvlm.config.load import load_config
from relvlm.config.schema import Config
from relvlm.plan.cluster import Cluster
from relvlm.plan.devices import DEVICES
from relvlm.plan.scaling import AIM, ROOM, Row, recommended, shares_alike, strong, weak
from relvlm.plan.scaling_tables import recommendation

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = Cluster(DEVICES["h200"], 1, 8)


@pytest.fixture(scope="module")
def recipe() -> Config:
    return load_config(ROOT / "configs/13m/rex_vlm.yaml", [])


@pytest.fixture(scope="module")
def rows(recipe: Config) -> list[Row]:
    return strong(recipe, CLUSTER)


def test_a_number_of_gpus_fits_where_every_batch_comes_out_in_whole_pools(recipe):
    assert [gpus for gpus in range(1, 65) if shares_alike(recipe, gpus)] == [1, 2, 4, 8, 16, 32]
    assert shares_alike(replace(recipe, accumulate=4), 8) and not shares_alike(replace(recipe, accumulate=4), 16)


def test_efficiency_is_the_work_of_a_gpu_hour(rows):
    assert [row.cluster.nodes for row in rows] == [1, 2, 4, 8, 16]
    assert rows[0].efficiency == 1 and rows[2].efficiency == pytest.approx(rows[0].gpu_hours / rows[2].gpu_hours)
    assert rows[2].gpu_hours == pytest.approx(32 * 500_000 * rows[2].plan.mean_seconds / 3600)


def test_shares_of_a_step_that_do_no_work(rows):
    first, last = rows[0], rows[-1]
    assert 0 < first.communicating < last.communicating and 0 < first.issuing < last.issuing
    assert last.issuing + last.communicating < 1
    free = strong(first.config, replace(CLUSTER, host=0.0))
    assert [row.issuing for row in free] == [0] * 5 and free[2].efficiency > rows[2].efficiency


def test_weak_scaling_keeps_the_share_of_a_gpu(recipe):
    found = weak(recipe, CLUSTER)
    assert [row.cluster.gpus for row in found] == [8, 16, 32, 64, 128, 256, 512]
    assert found[3].config.data.batch.captions == 8 * recipe.data.batch.captions
    compute = {row.plan.steps["captions"].compute for row in found}
    assert max(compute) == pytest.approx(min(compute))
    assert found[0].efficiency == 1 > found[3].efficiency > found[6].efficiency > 0.5


def with_efficiencies(rows: list[Row], *values: float) -> list[Row]:
    return [replace(row, efficiency=value) for row, value in zip(rows, values, strict=False)]


def test_the_most_nodes_that_keep_the_aim_are_recommended(rows):
    for second, nodes in ((AIM, 2), (AIM - 0.001, 1)):
        chosen = recommended(with_efficiencies(rows, 1.0, second, 0.5, 0.95, 0.95))  # the last two: too few pools
        assert chosen is not None and chosen.cluster.nodes == nodes


def test_nodes_whose_memory_is_too_small_are_not_recommended(rows):
    first = rows[0]
    device = replace(first.cluster.device, memory=0.999 * first.memory / ROOM)
    small = [
        replace(row, cluster=replace(row.cluster, device=device)) for row in with_efficiencies(rows, 1.0, 0.7, 0.6)
    ]
    assert not small[0].fits_memory and small[1].fits_memory
    chosen = recommended(small)
    assert chosen is not None and chosen.cluster.nodes == 2  # the fewest that will do
    assert "none of these numbers" in recommendation(small[:1])


def test_a_recommendation_says_why_not_more(rows):
    said = recommendation(rows)
    assert said.startswith("Recommended: 1 node, ") and "2 nodes, " in said and "bound by Python" in said
    assert "with smaller pools" in recommendation(with_efficiencies(rows, 1.0, 1.0, 1.0, 1.0))


@pytest.mark.parametrize("name", ["rex_vlm", "albef", "xvlm", "realbef"])
def test_batch_scripts_take_the_nodes_that_are_recommended(name):
    script = (ROOT / f"slurm/{name.removesuffix('_vlm')}_13m.sh").read_text()
    chosen = recommended(strong(load_config(ROOT / f"configs/13m/{name}.yaml", []), CLUSTER))
    assert chosen is not None and f"#SBATCH --nodes={chosen.cluster.nodes}\n" in script
