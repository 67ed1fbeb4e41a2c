"""What follows from a config: kinds that are drawn and trained, files that must be named."""

from pathlib import Path

import pytest

from relvlm.config.schema import (
    Config,
    DataConfig,
    DatasetConfig,
    FusionConfig,
    InitConfig,
    JointWeights,
    KindRatios,
    ModelConfig,
    MomentumConfig,
    TextConfig,
)
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


def test_the_defaults_are_the_papers_model():
    """BERT-base in two halves, 224 px, 256 features of ITC (paper, section 3)."""
    model = ModelConfig()
    assert (model.image_size, model.embed_dim, model.temperature, model.mrc_hidden) == (224, 256, 0.07, 3072)
    assert (model.localisation, model.relations, model.itm_floor) == (True, True, 0.0)
    assert not (model.recompute or model.compile or model.momentum.enabled)
    assert (model.text, model.fusion) == (
        TextConfig(layers=6, heads=12, width=768, mlp_ratio=4.0, max_positions=512, dropout=0.1, init_std=0.02),
        FusionConfig(layers=6, heads=12, region_mask="cross_attention"),
    )


def test_the_defaults_of_the_teacher_are_albefs():
    assert MomentumConfig() == MomentumConfig(False, decay=0.995, queue=65_536, alpha=0.4, ramp_steps=0)


def test_the_defaults_are_the_papers_training():
    optim, config = Config().optim, Config()
    assert (optim.lr, optim.betas, optim.weight_decay) == (1e-4, [0.9, 0.95], 0.02)
    assert (optim.warmup_steps, optim.warmup_lr, optim.final_lr) == (5000, 0.0, 0.0)
    assert (optim.clip_norm, optim.new_lr_factor) == (1.0, 1.0)
    assert (config.steps, config.seed, config.accumulate, config.threads) == (200_000, 0, 1, 0)
    assert (config.log_every, config.max_skipped_steps) == (20, 10)
    assert (config.checkpoint.every, config.checkpoint.keep, config.checkpoint.resume) == (1000, 0, True)
    assert (config.low_resolution.steps, config.low_resolution.image_size) == (0, 0)


def test_the_defaults_are_the_papers_texts_and_regions():
    """8 triplets in 112 tokens, 2 relations of 4 entities, a quarter of the words masked (paper, appendix)."""
    data = DataConfig()
    assert (data.max_text_tokens, data.max_vsg_tokens, data.max_words, data.vsg_triplets) == (36, 112, 40, 8)
    assert (data.regions_per_image, data.mrc_relations, data.mrc_entities) == (4, 2, 4)
    assert (data.mlm_probability, data.max_masks) == (0.25, 0)
    assert (data.skipgram_probability, data.skipgram_size) == (0.2, 3)


def test_by_default_nothing_is_drawn_nor_changed():
    data = DataConfig()
    assert data.drawn == [] and not any(vars(data.batch).values())
    assert (data.flip, data.crop_scale, data.randaugment, data.randaugment_geometry) == (
        0.0,
        1.0,
        False,
        False,
    )
    assert set(vars(data.joint_weights).values()) == {1.0}
    assert (data.workers, data.max_faults, data.max_pixels) == (0, 100, 178_956_970)  # beyond it PIL refuses
    dataset = DatasetConfig("x")
    assert (dataset.weight, dataset.block) == (1.0, 1)
