"""What fields say together: sizes that divide, and data for every kind that is drawn. Ranges belong to the fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from relvlm.config.keys import is_key, near_keys
from relvlm.config.schema import TEMPERATURE_RANGE, Config, DataConfig, ModelConfig
from relvlm.config.vision import SwinConfig, ViTConfig
from relvlm.kinds import KINDS, datasets_of

SERVICES = ("wandb", "trackio")  # that have the same functions (relvlm/engine/loggers.py)


@dataclass(frozen=True)
class Problem:
    """Fields that do not fit together: the one to name, what is wrong with it, and the others."""

    field: str
    message: str
    others: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """All that the problem is a consequence of."""
        return self.field, *self.others

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def problems(config: Config) -> Iterator[str]:
    """One line for each thing wrong, beginning with the field."""
    yield from map(str, all_problems(config))


def all_problems(config: Config) -> Iterator[Problem]:
    """Everything that does not fit together."""
    yield from (
        *model_problems(config.model),
        *_temperature(config.model),
        *_low_resolution(config),
        *_kinds(config.data),
        *_joint(config.data),
        *_pools(config.data),
        *_switches(config),
        *_queue(config),
        *_lengths(config),
        *_accepted(config),
        *_loggers(config),
        *_evaluations(config),
    )


def remarks(config: Config) -> Iterator[str]:
    """What is odd but may be meant, as in a run of a few steps that only tries something."""
    optim, warmup = config.optim, config.optim.warmup_steps
    if optim.final_lr > optim.lr and optim.decay != "constant":
        yield f"optim.final_lr: {optim.final_lr:g}: above optim.lr, {optim.lr:g}: the rate rises to it"
    if optim.warmup_lr > optim.lr and warmup:
        yield f"optim.warmup_lr: {optim.warmup_lr:g}: above optim.lr, {optim.lr:g}: the rate falls from it"
    if warmup >= config.steps:
        yield f"optim.warmup_steps: {warmup}: the run ends after {config.steps} steps, before optim.lr is reached"


def model_problems(model: ModelConfig) -> Iterator[Problem]:
    """Sizes of the model that do not go with each other."""
    vision = model.vision
    yield from _vit(vision, model) if isinstance(vision, ViTConfig) else _swin(vision, model)
    yield from _heads("model.text.heads", model.text.heads, "model.text.width", model.text.width)
    yield from _heads("model.fusion.heads", model.fusion.heads, "model.text.width", model.text.width)
    for name, part in (("vision", vision), ("text", model.text)):
        if round(part.width * part.mlp_ratio) < 1 or int(part.width * part.mlp_ratio) < 1:
            field = f"model.{name}.mlp_ratio"
            yield Problem(
                field, f"{part.mlp_ratio}: leaves no channel of the width {part.width}", (f"model.{name}.width",)
            )
    if model.image_size % vision.patch_size:
        message = f"{model.image_size} is no multiple of patch_size {vision.patch_size}"
        yield Problem("model.image_size", message, ("model.vision.patch_size",))


def _vit(vision: ViTConfig, model: ModelConfig) -> Iterator[Problem]:
    yield from _heads("model.vision.heads", vision.heads, "model.vision.width", vision.width)
    if model.fusion.region_mask == "late_vision" and not 0 < vision.late_blocks <= vision.layers:
        message = f"{vision.late_blocks}: must be within the {vision.layers} layers"
        yield Problem("model.vision.late_blocks", message, ("model.vision.layers", "model.fusion.region_mask"))


def _swin(vision: SwinConfig, model: ModelConfig) -> Iterator[Problem]:
    if len(vision.heads) != len(vision.depths):
        message = f"{vision.heads}: one number for each stage of depths {vision.depths}"
        yield Problem("model.vision.heads", message, ("model.vision.depths",))
    for stage, heads in enumerate(vision.heads):
        yield from _heads(f"model.vision.heads[{stage}]", heads, "model.vision.width", vision.width * 2**stage)
    if model.fusion.region_mask == "late_vision":
        yield Problem("model.fusion.region_mask", "late_vision needs a ViT, a Swin has windows", ("model.vision",))
    if not model.image_size % vision.patch_size:
        yield from _windows(vision, model.image_size)


def _windows(vision: SwinConfig, image_size: int) -> Iterator[Problem]:
    """A stage is a whole number of windows, or smaller than one; each stage but the last is halved."""
    side, others = image_size // vision.patch_size, ("model.vision",)
    for stage in range(len(vision.depths)):
        if side > vision.window and side % vision.window:
            message = f"{image_size}: stage {stage} of the Swin has {side} patches a side, no multiple of its window "
            yield Problem("model.image_size", f"{message}{vision.window}", others)
            return
        if stage + 1 < len(vision.depths) and side % 2:
            message = f"{image_size}: stage {stage} of the Swin has {side} patches a side, which cannot be halved"
            yield Problem("model.image_size", message, others)
            return
        side //= 2


def _heads(name: str, heads: int, width_name: str, width: int) -> Iterator[Problem]:
    if width % heads:
        yield Problem(name, f"{heads} does not divide the width {width}", (width_name,))


def _temperature(model: ModelConfig) -> Iterator[Problem]:
    """Of a run alone: a checkpoint may say what its run began otherwise."""
    low, high = TEMPERATURE_RANGE
    if not low <= model.temperature <= high:
        message = f"{model.temperature}: training keeps it from {low} to {high}, and would begin there"
        yield Problem("model.temperature", message)


def _low_resolution(config: Config) -> Iterator[Problem]:
    """A Swin needs the grid that its windows divide."""
    model, low, patch = config.model, config.low_resolution, config.model.vision.patch_size
    if low.steps >= config.steps:
        message = f"{low.steps}: must be within the {config.steps} steps and leave some at full size"
        yield Problem("low_resolution.steps", message, ("steps",))
    if low.steps and isinstance(model.vision, SwinConfig):
        message = "needs a ViT, a Swin is built for one image size (set it to 0)"
        yield Problem("low_resolution.steps", message, ("model.vision",))
    elif low.steps and low.image_size not in range(patch, model.image_size, patch):
        message = f"{low.image_size}: must be a multiple of patch_size {patch} below model.image_size"
        others = ("low_resolution.steps", "model.image_size", "model.vision.patch_size")
        yield Problem("low_resolution.image_size", f"{message} {model.image_size}", others)


def _kinds(data: DataConfig) -> Iterator[Problem]:
    if not data.drawn:
        yield Problem("data.ratio", "every kind is 0, there is nothing to train on")
    for kind in data.drawn:
        section, ratio = f"data.{datasets_of(kind)}", f"data.ratio.{kind}"
        datasets = getattr(data, datasets_of(kind))
        if not datasets:
            yield Problem(section, f"empty, but {ratio} draws from it (add a path)", (ratio,))
        elif not any(dataset.weight for dataset in datasets):
            yield Problem(section, f"every weight is 0, but {ratio} draws from it", (ratio,))
        if not getattr(data.batch, kind):
            yield Problem(f"data.batch.{kind}", f"must be positive, {ratio} draws it", (ratio,))
    count, each = data.batch.entities, data.regions_per_image
    if "entities" in data.drawn and count % each:
        message = f"{count} regions are no multiple of data.regions_per_image {each}"
        yield Problem("data.batch.entities", message, ("data.regions_per_image", "data.ratio.entities"))
    if data.sep and data.max_text_tokens < 3:
        yield Problem("data.max_text_tokens", "2: with data.sep, a word needs 3 ([CLS] word [SEP])", ("data.sep",))


def _joint(data: DataConfig) -> Iterator[Problem]:
    if data.ratio.joint and not data.trained:
        yield Problem("data.joint_weights", "every kind is 0, there is nothing to train on", ("data.ratio.joint",))


def _pools(data: DataConfig) -> Iterator[Problem]:
    """A block stays whole, and so does a pool."""
    for kind in (kind for kind in data.drawn if hasattr(data.negative_pool, kind)):
        pool, section = getattr(data.negative_pool, kind), f"data.{datasets_of(kind)}"
        for place, dataset in enumerate(getattr(data, datasets_of(kind))):
            if pool < dataset.block:
                message = f"{pool}: must hold a block of {section}[{place}], which has {dataset.block} images"
                yield Problem(f"data.negative_pool.{kind}", message, (section, f"data.ratio.{kind}"))


def _switches(config: Config) -> Iterator[Problem]:
    model, data = config.model, config.data
    for needy, switch in (("entities", "localisation"), ("mrc", "relations")):
        if needy in data.trained and not getattr(model, switch):
            by = f"data.ratio.{needy}" if needy in data.drawn else f"data.joint_weights.{needy}"
            yield Problem(f"model.{switch}", f"false, but {by} draws {needy} batches", (by, "data.ratio.joint"))


def _queue(config: Config) -> Iterator[Problem]:
    momentum, data = config.model.momentum, config.data
    largest = max((_groups(data, kind) for kind in data.drawn), default=0)
    if momentum.enabled and momentum.queue < largest:
        message = f"{momentum.queue} holds less than one batch of {largest}"
        others = ("model.momentum.enabled", "data.batch", "data.ratio", "data.joint_weights", "data.regions_per_image")
        yield Problem("model.momentum.queue", message, others)


def _groups(data: DataConfig, kind: str) -> int:
    """Most pairs of text and view that a global batch brings to the teacher's queue."""
    if kind in KINDS and not KINDS[kind].aligned:
        return 0
    images, regions = getattr(data.batch, kind), data.regions_per_image
    if kind == "entities":  # counted in regions; each image may bring its caption
        return images + images // regions
    if kind == "joint":
        weights = data.joint_weights
        return images * ((weights.captions > 0) + (weights.vsg > 0) + (regions + 1) * (weights.entities > 0))
    return images


def _lengths(config: Config) -> Iterator[Problem]:
    """The position table must hold the longest text of every kind that is drawn."""
    places = config.model.text.max_positions
    longest = {"max_text_tokens": config.data.max_text_tokens}
    if "vsg" in config.data.trained:
        longest["max_vsg_tokens"] = config.data.max_vsg_tokens
    for name, tokens in longest.items():
        if places < tokens:
            others = (f"data.{name}", "data.ratio", "data.joint_weights")
            yield Problem("model.text.max_positions", f"{places} is less than data.{name} {tokens}", others)


def _accepted(config: Config) -> Iterator[Problem]:
    for place, key in enumerate(config.resume.accept):
        if not is_key(key):
            yield Problem(f"resume.accept[{place}]", f"{key!r} is no key of a config{near_keys(key)}")


def _loggers(config: Config) -> Iterator[Problem]:
    for place, name in enumerate(config.loggers):
        if name not in SERVICES:
            yield Problem(f"loggers[{place}]", f"{name!r} is none of {', '.join(SERVICES)}")


def _evaluations(config: Config) -> Iterator[Problem]:
    if config.eval.every and config.eval.suite is None:
        yield Problem("eval.suite", f"missing, but eval.every is {config.eval.every} (a folder of benchmarks)")
    if config.checkpoint.keep_best is not None and not config.eval.every:
        message = f"{config.checkpoint.keep_best!r}: needs evaluations (set eval.every and eval.suite)"
        yield Problem("checkpoint.keep_best", message, ("eval.every",))
