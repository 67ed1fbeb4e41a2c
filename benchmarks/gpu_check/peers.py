"""Attention by other ways that exist on a GPU, beside ours at the same shapes; one that fails or is off is a row."""

from __future__ import annotations

import torch
from attention_times import checked, compare, made_ways
from flash_ways import FlashBoxes, FlashImages
from mrc_ways import Flex, Masked, Ours, Way
from support.shapes import Shape, as_trained, make_batch

from gpu_check.ceilings import limits
from gpu_check.check import Check
from gpu_check.kernels import about
from gpu_check.target import Target, spare_the_compiler, target

REPEATS = 5


def main(check: Check) -> None:
    here, most = target(check), limits(check)
    if here.toy:
        spare_the_compiler()
    for shape in here.shapes():
        measure(check, shape, [Ours, FlashImages, FlashBoxes, Masked], here, most)
        measure(check, as_trained(shape), [Ours, FlashImages, FlashBoxes, Masked], here, most)
    measure(check, here.shapes()[0], [Ours, Flex], here, most)  # last: it compiles for up to a minute


def measure(check: Check, shape: Shape, kinds: list[type[Way]], here: Target, most: dict[str, float]) -> None:
    """Rows of every way, forward and backward; all are compared with fp64 where there is no dropout."""
    batch = make_batch(shape, here.device)
    ways, refused = made_ways(batch, kinds)
    for name, why in refused.items():
        check.row(what="refused", way=name, **about(batch), why=why)
    wrong = checked(ways, here.dtype)
    for name, what in wrong.items():
        check.row(what="wrong", way=name, **about(batch), **what)
    sound = [way for way in ways if "error" not in wrong.get(way.name, {})]
    for stage in ("forward", "backward"):
        cells = compare(stage, sound, here.device, here.dtype, 1 if here.toy else REPEATS, most)
        for name, cell in cells.items():
            check.row(what="peer", way=name, when=stage, **about(batch), **cell)
    if here.device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(Check.from_arguments("peers"))
