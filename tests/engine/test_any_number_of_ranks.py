"""The same run on 1, 2 and 4 ranks, in one chunk and in two: the same losses for every kind of batch."""

import os
import socket
from pathlib import Path

import pytest
import torch.multiprocessing as mp

from relvlm import ranks
from relvlm.compare import difference, read_log
from relvlm.config.load import load_config
from relvlm.errors import UserError

pytestmark = pytest.mark.slow

EVERY_KIND = ["data.ratio={captions: 1, entities: 1, mrc: 1, vsg: 1, joint: 1}", "data.batch.joint=8"]
MODELS = {"plain": [], "momentum": ["model.momentum={enabled: true, queue: 50, ramp_steps: 8}"]}
RUNS = {(name, chunks): [*more, f"accumulate={chunks}"] for name, more in MODELS.items() for chunks in (1, 2)}
WORLDS = {1: RUNS, 2: RUNS, 4: {("plain", 1): RUNS["plain", 1]}}
KINDS = {"captions", "entities", "mrc", "vsg", "joint"}


@pytest.fixture(scope="module")
def runs(tiny: list[str], relworld: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of `NAME-CHUNKS-RANKS`, and of what two ranks said to four images in one pool."""
    folder = tmp_path_factory.mktemp("ranks")
    joint = f"data.joint=[{{path: {relworld / 'graphs'}, block: 2}}]"
    command = [*tiny[1:], joint, *EVERY_KIND, "steps=16", "log_every=16", "checkpoint.every=1000"]
    for size in WORLDS:
        mp.spawn(_train, (size, free_port(), command, folder), nprocs=size)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _train(rank: int, size: int, port: int, command: list[str], folder: Path) -> None:
    """All runs of a world in one process group: starting one takes seconds."""
    from relvlm.engine import loop

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    loop.stop = ranks.barrier  # the group stays for the next run
    config, *overrides = command
    for (name, chunks), more in WORLDS[size].items():
        loop.run(load_config(Path(config), [*overrides, *more, f"out={folder / f'{name}-{chunks}-{size}'}"]))
    if size == 2:
        try:
            loop.run(load_config(Path(config), [*overrides, "data.negative_pool.entities=4", f"out={folder / 'none'}"]))
        except UserError as error:
            (folder / f"refused-{rank}.txt").write_text(str(error))
    ranks.stop()


@pytest.mark.parametrize(
    ("name", "chunks", "size"),
    [(name, chunks, size) for size, runs in WORLDS.items() for name, chunks in runs if (chunks, size) != (1, 1)],
)
def test_losses_are_those_of_one_rank_and_one_chunk(name, chunks, size, runs):
    one, other = (read_log(runs / run) for run in (f"{name}-1-1", f"{name}-{chunks}-{size}"))
    logged = {column.split("/")[0] for row in one.rows.values() for column, cell in row.items() if cell}
    assert logged > KINDS and len(one.rows) == 16
    assert difference(one, other, 1e-5) is None


def test_a_teacher_changes_the_losses(runs):
    assert difference(read_log(runs / "plain-1-1"), read_log(runs / "momentum-1-1"), 1e-2)


def test_a_batch_that_ranks_cannot_share_is_refused_on_each_of_them_before_any_work(runs):
    said = {(runs / f"refused-{rank}.txt").read_text() for rank in range(2)}
    assert said == {
        "data.negative_pool.entities: 4 images in pools of at most 4 cannot be dealt to 2 ranks "
        "(numbers of ranks that fit: 1; or set it to 2)"
    }
    assert not (runs / "none").exists()
