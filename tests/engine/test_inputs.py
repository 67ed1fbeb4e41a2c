"""What a run reads beforehand: by one rank for all, and what is wrong is said by one."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.scenes import COUNT, DIGITS, WORDS, scene, write
from support.threads import Threads

from relvlm import ranks
from relvlm.config.schema import CheckpointConfig, Config, DataConfig, InitConfig, KindCounts, KindRatios, NegativePools
from relvlm.data.batches.loader import Loader, build_loader
from relvlm.engine.inputs import read_inputs
from relvlm.errors import ToldByFirstRank, UserError
from relvlm.ranks import attempt, on_first_rank, share


@pytest.fixture
def config(tmp_path) -> Config:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS + DIGITS))
    scenes = [write(tmp_path, name, map(scene, range(COUNT))) for name in ("one", "two")]
    data = DataConfig(
        vocab=str(tmp_path / "vocab.txt"),
        captions=scenes,
        batch=KindCounts(captions=8),
        negative_pool=NegativePools(captions=4),
        ratio=KindRatios(captions=1),
    )
    return Config(out=str(tmp_path / "run"), init=InitConfig(vision="random", text="random"), data=data)


def loader_of_rank(config: Config, rank: int) -> Loader:
    inputs = on_first_rank(lambda: read_inputs(config))
    return build_loader(
        config.data, inputs.streams, inputs.sets, image_size=32, patch_size=8, seed=0, rank=rank, world_size=2
    )


def count_looks(patch: pytest.MonkeyPatch) -> Counter[tuple[int, str]]:
    """From now on, how often each rank asks for the status of a file of that name, or opens it."""
    found: Counter[tuple[int, str]] = Counter()
    for owner, name in ((os, "stat"), (Path, "stat"), (Path, "open")):
        real = getattr(owner, name)

        def counting(path, *arguments, real=real, **options):
            found[ranks.rank(), Path(os.fspath(path)).name] += 1
            return real(path, *arguments, **options)

        patch.setattr(owner, name, counting)
    return found


def test_manifests_and_shards_are_looked_at_by_the_first_rank_alone(config, monkeypatch):
    threads = Threads(2)
    threads.own.rank = 0  # of this thread, too
    with monkeypatch.context() as patch:
        patch.setattr(ranks, "dist", threads)
        found = count_looks(patch)
        threads.run(lambda rank: loader_of_rank(config, rank) and None)
    shards = {name for _, name in found if name.endswith((".tar", ".idx.npy"))}
    assert len(shards) == 6 and all(found[0, name] for name in [*shards, "manifest.json"])
    assert not any(found[1, name] for name in [*shards, "manifest.json"])


def test_what_the_first_rank_has_read_is_enough_for_the_others(config, monkeypatch):
    threads = Threads(2)
    monkeypatch.setattr(ranks, "dist", threads)
    shares = threads.run(lambda rank: next(loader_of_rank(config, rank))[0].image_key.numpy())
    monkeypatch.undo()
    inputs = read_inputs(config)
    whole = build_loader(config.data, inputs.streams, inputs.sets, image_size=32, patch_size=8, seed=0)
    assert np.array_equal(np.concatenate(shares), next(whole)[0].image_key.numpy())


def test_inputs_tell_the_words_and_the_content_of_each_set(config):
    inputs = read_inputs(config)
    assert inputs.vocab_size == len(WORDS + DIGITS) and inputs.relations == []
    assert inputs.hashes.keys() == {"data.vocab", "data.captions[0].path", "data.captions[1].path"}
    assert [stream.size for stream in inputs.streams] == [COUNT, COUNT] == [len(each) for each in inputs.sets]


def test_what_is_wrong_is_said_by_the_first_rank_alone(config, monkeypatch):
    threads = Threads(3)
    monkeypatch.setattr(ranks, "dist", threads)
    gone = replace(config, data=replace(config.data, vocab="gone.txt"))

    def work(rank: int) -> type[UserError]:
        with pytest.raises(UserError, match=r"gone\.txt: data\.vocab: no such file") as caught:
            share(attempt(lambda: read_inputs(gone)) if rank == 0 else None)
        return caught.type

    assert threads.run(work) == [UserError, ToldByFirstRank, ToldByFirstRank]


def test_checkpoints_are_not_overwritten_where_resuming_is_off(config):
    never = replace(config, checkpoint=CheckpointConfig(resume=False))
    read_inputs(never)
    (Path(config.out) / "checkpoints/step_0000003").mkdir(parents=True)
    read_inputs(config)
    with pytest.raises(UserError, match=r"checkpoint\.resume is false"):
        read_inputs(never)
