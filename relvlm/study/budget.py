"""How many steps of an arm are one budget: the paper compares at equal steps; images seen and FLOPs are fairer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from relvlm.config.schema import Config
from relvlm.data.text import Tokenizer
from relvlm.plan.flops import Sizes, trained
from relvlm.plan.workload import workloads
from relvlm.pretrained import relations_of
from relvlm.study.plan import Budget


@dataclass(frozen=True)
class Cost:
    """Of an average step, by how often each kind is drawn; `saved` FLOPs fewer in the first, small `small_steps`."""

    images: float
    flops: float
    saved: float = 0
    small_steps: int = 0

    def spent(self, steps: int) -> float:
        """FLOPs of so many steps from the first."""
        return steps * self.flops - min(steps, self.small_steps) * self.saved

    def affords(self, flops: float) -> float:
        """Steps from the first that so many FLOPs are spent on: the inverse of `spent`."""
        if flops < self.spent(self.small_steps):
            return flops / (self.flops - self.saved)
        return (flops + self.small_steps * self.saved) / self.flops


def cost_of(config: Config) -> Cost:
    """As `relvlm plan` counts, with the config's own vocabulary and relations; UserError where these are not there."""
    words, relations = Tokenizer(config.data.vocab_file).vocab_size, len(relations_of(config))
    works, low = workloads(config), config.low_resolution
    total = sum(getattr(config.data.ratio, kind) for kind in works)
    shares = {kind: getattr(config.data.ratio, kind) / total for kind in works}

    def flops(image_size: int) -> float:
        sizes = Sizes(replace(config.model, image_size=image_size), words, relations)
        return sum(shares[kind] * sum(trained(sizes, sections).values()) for kind, sections in works.items())

    images = sum(shares[kind] * sections[0].images for kind, sections in works.items())
    whole = flops(config.model.image_size)
    return Cost(images, whole, whole - flops(low.image_size), low.steps) if low.steps else Cost(images, whole)


def steps_of(budget: Budget, config: Config, share: float = 1.0) -> int:
    """At least one; of `share` of the budget."""
    if budget.steps:
        return max(1, round(share * budget.steps))
    cost = cost_of(config)
    if budget.images:
        return max(1, round(share * budget.images / cost.images))
    return max(1, round(cost.affords(share * budget.tflop * 1e12)))
