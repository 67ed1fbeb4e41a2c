"""How a model is trained: what its keys may be."""

from support.limits import limits

from relvlm.config.training import CheckpointConfig, InitConfig, LowResolutionConfig, OptimConfig


def test_limits_stay_as_they_are():
    assert limits("optim.", "low_resolution.", "checkpoint.", "eval.", "init.", "resume.") == {
        "not empty; ~ and $VAR are expanded": "eval.suite init.checkpoint init.text init.vision",
        "above 0, finite": "optim.lr",
        "2 entries, each at least 0 and below 1": "optim.betas",
        "at least 0 and at most 100": "optim.weight_decay",
        "at least 0 and at most 9,999,999": " ".join(
            [
                "checkpoint.keep checkpoint.keep_every checkpoint.max_failed eval.every low_resolution.steps",
                "optim.warmup_steps",
            ]
        ),
        "at least 0, finite": "optim.clip_norm optim.final_lr optim.warmup_lr",
        "above 0 and at most 1,000,000": "optim.new_lr_factor",
        "at least 0 and at most 16,384": "low_resolution.image_size",
        "at least 1 and at most 9,999,999": "checkpoint.every",
        "0 to 1000 entries, each not empty": "resume.accept",
        "0 to 100 entries, each not empty": "eval.tasks",
        "at least 0 and at most 1,000,000,000": "eval.limit",
        "not empty": "checkpoint.keep_best",
    }


def test_init_random_is_short_for_both_backbones():
    assert InitConfig.of_word("random") == {"vision": "random", "text": "random"}
    assert InitConfig.of_word("chance") == {}


def test_the_defaults_are_the_papers_training():
    optim, checkpoint, low = OptimConfig(), CheckpointConfig(), LowResolutionConfig()
    assert (optim.lr, optim.betas, optim.weight_decay) == (1e-4, [0.9, 0.95], 0.02)
    assert (optim.warmup_steps, optim.warmup_lr, optim.final_lr) == (5000, 0.0, 0.0)
    assert (optim.clip_norm, optim.new_lr_factor) == (1.0, 1.0)
    assert (checkpoint.every, checkpoint.keep, checkpoint.resume) == (1000, 0, True)
    assert (low.steps, low.image_size) == (0, 0)
