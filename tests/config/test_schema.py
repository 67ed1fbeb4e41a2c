"""What follows from a config: kinds that are drawn and trained, files that must be named."""

from pathlib import Path

import pytest

from relvlm.config.schema import DataConfig, InitConfig, JointWeights, KindRatios
from relvlm.errors import UserError


def test_kinds_of_positive_ratio_are_drawn():
    assert DataConfig(ratio=KindRatios(captions=0.1, vsg=2.0)).drawn == ["captions", "vsg"]


def test_joint_steps_train_the_kinds_that_they_weigh():
    data = DataConfig(ratio=KindRatios(captions=1, joint=1), joint_weights=JointWeights(0.0, 1.0, 0.0, 0.5))
    assert data.drawn == ["captions", "joint"] and data.trained == {"captions", "entities", "vsg"}


def test_without_joint_steps_their_weights_train_nothing():
    assert DataConfig(ratio=KindRatios(mrc=1)).trained == {"mrc"}


def test_files_that_are_named_are_paths():
    data = DataConfig(vocab="a/vocab.txt", relations="b/relations.txt")
    assert (data.vocab_file, data.relations_file) == (Path("a/vocab.txt"), Path("b/relations.txt"))


def test_files_that_are_needed_but_not_named_are_an_error():
    with pytest.raises(UserError, match=r"^data\.vocab: missing"):
        _ = DataConfig().vocab_file
    with pytest.raises(UserError, match=r"^data\.relations: missing"):
        _ = DataConfig().relations_file


def test_init_random_is_short_for_both_backbones():
    assert InitConfig.of_word("random") == {"vision": "random", "text": "random"}
    assert InitConfig.of_word("chance") == {}
