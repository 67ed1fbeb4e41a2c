"""What follows from a config: kinds that are drawn and trained, files that must be named."""

from pathlib import Path

import pytest
from support.limits import limits

from relvlm.config.schema import (
    Config,
    DataConfig,
    DatasetConfig,
    FusionConfig,
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


def test_the_defaults_of_a_run():
    config = Config()
    assert (config.steps, config.seed, config.accumulate, config.threads) == (200_000, 0, 1, 0)
    assert (config.log_every, config.max_skipped_steps, config.max_rollbacks) == (20, 10, 3)


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
    assert vars(data.negative_pool) == {"captions": 64, "entities": 48, "vsg": 64, "joint": 48}
    dataset = DatasetConfig("x")
    assert (dataset.weight, dataset.block) == (1.0, 1)


def test_limits_stay_as_they_are():
    elsewhere = (
        "optim.",
        "low_resolution.",
        "checkpoint.",
        "init.",
        "resume.",
        "eval.",
        "model.vision.",
        "deadlines.",
        "spikes.",
    )
    assert limits("", without=elsewhere) == {
        "not empty": "name",
        "not empty; ~ and $VAR are expanded": " ".join(
            [
                "data.captions[].path data.entities[].path data.graphs[].path data.joint[].path data.relations",
                "data.vocab out",
            ]
        ),
        "0 to 2 entries, each not empty": "loggers",
        "at least 0 and at most 2,147,483,647": "seed",
        "at least 1 and at most 9,999,999": "log_every steps",
        "at least 0 and at most 4,096": "threads",
        "at least 1 and at most 1,000,000": " ".join(
            [
                "accumulate data.captions[].block data.entities[].block data.graphs[].block data.joint[].block",
                "data.max_words",
            ]
        ),
        "at least 0 and at most 1,000": "max_rollbacks",
        "at least 0 and at most 9,999,999": "max_skipped_steps model.momentum.ramp_steps",
        "at least 1 and at most 16,384": "model.image_size",
        "at least 1 and at most 65,536": "model.embed_dim model.mrc_hidden model.text.width",
        "above 0 and at most 100": "model.temperature",
        "at least 0 and at most 1": " ".join(
            [
                "data.flip data.skipgram_probability model.itm_floor model.momentum.alpha model.momentum.decay",
            ]
        ),
        "at least 1 and at most 1,000": " ".join(
            [
                "data.mrc_entities data.mrc_relations data.regions_per_image data.skipgram_size data.vsg_triplets",
                "model.fusion.layers model.text.layers",
            ]
        ),
        "at least 1 and at most 1,024": "model.fusion.heads model.text.heads",
        "above 0 and at most 64": "model.text.mlp_ratio",
        "at least 2 and at most 1,000,000": "data.max_text_tokens data.max_vsg_tokens model.text.max_positions",
        "at least 0 and below 1": "model.text.dropout",
        "at least 0 and at most 100": "model.text.init_std",
        "at least 1 and at most 1,000,000,000": "model.momentum.queue",
        "above 0 and at most 1": "data.crop_scale data.mlm_probability",
        "at least 0 and at most 1,000,000": " ".join(
            [
                "data.captions[].weight data.entities[].weight data.graphs[].weight data.joint[].weight",
                "data.joint_weights.captions data.joint_weights.entities data.joint_weights.mrc",
                "data.joint_weights.vsg data.max_masks data.ratio.captions data.ratio.entities data.ratio.joint",
                "data.ratio.mrc data.ratio.vsg device_tflops",
            ]
        ),
        "above 0 and at most 1,000,000": " ".join(
            [
                "data.relation_weights.boxes data.relation_weights.human data.relation_weights.model",
                "data.relation_weights.parser",
            ]
        ),
        "at least 0 and at most 1,024": "data.workers",
        "at least 0 and at most 1,000,000,000": "data.max_faults",
        "at least 1 and at most 178,956,970": "data.max_pixels",
        "at least 0 and at most 10,000,000": " ".join(
            [
                "data.batch.captions data.batch.entities data.batch.joint data.batch.mrc data.batch.vsg",
            ]
        ),
        "at least 1 and at most 10,000,000": " ".join(
            [
                "data.negative_pool.captions data.negative_pool.entities data.negative_pool.joint",
                "data.negative_pool.vsg",
            ]
        ),
    }
