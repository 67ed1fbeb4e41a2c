"""Entry of the launchers: `deepspeed relvlm/train.py --deepspeed --deepspeed_config D --config C [key=value ...]`.

The same as `relvlm train`; srun, torchrun and submitit start this file too.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from relvlm.config.load import load_config
from relvlm.engine.lease import refuse_if_held
from relvlm.errors import ToldByFirstRank, UserError
from relvlm.paths import Parser
from relvlm.stopping import REQUEUE, Stopped, end_at_once, end_undisturbed, leave


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Pretrain a model. `relvlm config --schema` lists what a config may hold."
    parser.epilog = "example: relvlm train --config configs/mini/rex_vlm.yaml out=runs/try steps=200 optim.lr=1e-3"
    parser.add_argument("--config", type=Path, required=True, help="YAML, e.g. configs/mini/rex_vlm.yaml")
    parser.add_argument(
        "--deepspeed_config", type=Path, help="DeepSpeed JSON: ZeRO stage etc. (default: stage 1; 0 for one process)"
    )
    parser.add_argument("--deepspeed", action="store_true", help="accepted for the launcher; always on")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted config key and its value")


def main(args: argparse.Namespace) -> int:
    """Train; returns the exit status, which is that of a job to be requeued where the run was told to end."""
    end_at_once()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = load_config(args.config, args.overrides)
    refuse_if_held(Path(config.out))
    from relvlm.engine.loop import run  # imports torch: seconds, which a wrong config need not wait for
    from relvlm.evals.checkpoints.during import TrainingJudge

    try:
        last = run(config, args.deepspeed_config, TrainingJudge(config))
    except Stopped as stopped:
        end_undisturbed()
        logging.warning("%s", stopped)
        return REQUEUE
    if os.environ["RANK"] == "0":
        print(f"trained: {last}")
    return 0


def script() -> None:
    parser = Parser("train.py")
    add_arguments(parser)
    try:
        status = main(parser.parse_intermixed_args())
    except ToldByFirstRank:
        status = 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    leave(status)


if __name__ == "__main__":
    script()
