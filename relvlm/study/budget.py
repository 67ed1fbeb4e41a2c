"""How many steps of an arm are one budget: the paper compares at equal steps; images seen and FLOPs are fairer."""

from __future__ import annotations

from dataclasses import dataclass

from relvlm.config.schema import Config
from relvlm.data.text import Tokenizer
from relvlm.plan.flops import Sizes, trained
from relvlm.plan.workload import workloads
from relvlm.pretrained import relations_of
from relvlm.study.plan import Budget


@dataclass(frozen=True)
class Cost:
    """Of an average step, by how often each kind is drawn."""

    images: float
    flops: float


def cost_of(config: Config) -> Cost:
    """As `relvlm plan` counts, with the config's own vocabulary and relations; UserError where these are not there."""
    sizes = Sizes(config.model, Tokenizer(config.data.vocab_file).vocab_size, len(relations_of(config)))
    works = workloads(config)
    total = sum(getattr(config.data.ratio, kind) for kind in works)
    shares = {kind: getattr(config.data.ratio, kind) / total for kind in works}
    images = sum(shares[kind] * sections[0].images for kind, sections in works.items())
    flops = sum(shares[kind] * sum(trained(sizes, sections).values()) for kind, sections in works.items())
    return Cost(images, flops)


def steps_of(budget: Budget, config: Config, share: float = 1.0) -> int:
    """At least one; of `share` of the budget."""
    if budget.steps:
        return max(1, round(share * budget.steps))
    cost = cost_of(config)
    whole = budget.images / cost.images if budget.images else budget.tflop * 1e12 / cost.flops
    return max(1, round(share * whole))
