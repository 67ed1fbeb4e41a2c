"""The benchmark files that tests count, by name: more may lie beside them in the folder of test data."""

from collections.abc import Iterable
from pathlib import Path

from relvlm.evals.tasks import valse

SUGARCREPE_PIECES = (
    "add_att",
    "add_obj",
    "replace_att",
    "replace_obj",
    "replace_rel",
    "swap_att",
    "swap_obj",
)
VSR = ("dev.jsonl", "test.jsonl")
VALSE = tuple(f"{instrument}.json" for instrument in valse.PIECE)
SUGARCREPE = tuple(f"{piece}.json" for piece in SUGARCREPE_PIECES)
COCO_CC_SLICES = (
    *(f"vsr_{split}.jsonl" for split in ("random_dev", "random_train", "zeroshot_test", "zeroshot_train")),
    *(f"valse_{instrument}.json" for instrument in ("foil-it", "plurals", "relations")),
    *(f"sugarcrepe_{piece}.json" for piece in SUGARCREPE_PIECES),
)


def linked(folder: Path, names: Iterable[str], to: Path) -> Path:
    """The new folder `to` with links to the files of these names in `folder`."""
    to.mkdir()
    for name in names:
        (to / name).symlink_to(folder / name)
    return to
