"""`relvlm convert`: an official checkpoint as a checkpoint folder of ours, and back."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from relvlm.config import yaml_text
from relvlm.data.arguments import positive
from relvlm.errors import UserError
from relvlm.storage import sha256, writing

if TYPE_CHECKING:
    from relvlm.convert.official import Converted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Turn an official ALBEF or X-VLM checkpoint into a folder of ours, or back, without loss."
    parser.epilog = (
        "examples:\n"
        "  relvlm convert albef ALBEF_4M.pth runs/albef_4m --vocab data/bert-base-uncased/vocab.txt\n"
        "  relvlm convert albef runs/albef_4m ALBEF_4M_again.pth"
    )
    parser.add_argument("family", choices=("albef", "xvlm"), help="whose checkpoint it is")
    parser.add_argument("source", type=Path, metavar="IN", help="file.pth; to go back, a folder of ours")
    parser.add_argument("target", type=Path, metavar="OUT", help="folder; to go back, file.pth")
    parser.add_argument(
        "--back", action="store_true", help="from ours to the official names (also where IN is a folder)"
    )
    parser.add_argument(
        "--config",
        type=Path,
        help="official YAML or JSON of the model (default: the one in the file, if any)",
    )
    parser.add_argument("--vocab", type=Path, help="vocab.txt of bert-base-uncased, to go into the folder")
    parser.add_argument("--image-size", type=positive, default=0, help="interpolate the position tables for this size")
    parser.add_argument(
        "--drop", action="append", default=[], metavar="NAME",
        help="with --back: leave out a part that the official model has not, e.g. mrc_head",
    )  # fmt: skip


def main(args: argparse.Namespace) -> None:
    if not args.source.exists():
        raise UserError(f"{args.source}: no such file or folder")
    empty = args.target.is_dir() and not any(args.target.iterdir())
    if args.target.exists() and not empty:
        raise UserError(f"{args.target}: already there (name another, or remove it)")
    back = args.back or args.source.is_dir()
    idle = ("config", "vocab", "image_size") if back else ("drop",)
    for flag in (f"--{name.replace('_', '-')}" for name in idle if getattr(args, name)):
        raise UserError(f"relvlm convert {flag}: has no effect {'on the way back' if back else 'but with --back'}")
    (_back if back else _forth)(args)


def read_config(path: Path) -> Mapping[str, Any]:
    """The official YAML or JSON of a model."""
    try:
        config = yaml_text.read(path.read_bytes())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable: {error}") from error
    if not isinstance(config, Mapping):
        raise UserError(f"{path}: expected sections, found {config!r}")
    return config


def _forth(args: argparse.Namespace) -> None:
    import torch

    from relvlm.config.schema import Config, DataConfig
    from relvlm.convert.files import state_dict_of
    from relvlm.convert.official import WORDS, check_shapes, convert, split
    from relvlm.data.text import Tokenizer
    from relvlm.pretrained import write_alone

    tensors, config = state_dict_of(args.source)
    config = read_config(args.config) if args.config else config
    converted = convert(tensors, config, args.family, str(args.source), args.image_size)
    model, ours = converted.config, converted.tensors
    check_shapes(model, ours, str(args.source))
    words, dtype = len(ours[WORDS]), ours[WORDS].dtype
    if args.vocab and Tokenizer(args.vocab).vocab_size != words:
        raise UserError(f"{args.vocab}: {Tokenizer(args.vocab).vocab_size} tokens, the model has {words}")
    ours = {k: t.float().contiguous() if t.is_floating_point() else t for k, t in ours.items()}
    student, teacher = split(ours, tied=False)
    data = DataConfig(
        vocab=str(args.vocab) if args.vocab else None,
        sep=False,
        max_text_tokens=min(40, model.text.max_positions),
    )
    origin = {
        "family": args.family,
        "dtype": str(dtype).removeprefix("torch."),
        "sha256": sha256(args.source),
        "new": converted.new,
    }
    state = split(ours)[1] | {"_extra_state": {"seen": 0}} if teacher else {}
    write_alone(
        args.target, student, state, Config(name=args.target.name, model=model, data=data), {"official": origin}
    )
    count = sum(t.numel() for t in student.values() if isinstance(t, torch.Tensor))
    print(f"{args.target}: {len(tensors)} official tensors, {count:,} parameters of ours")
    _say_what_differs(args, converted)


def _say_what_differs(args: argparse.Namespace, converted: Converted) -> None:
    """From a published checkpoint: what is missing, random or without use."""
    if args.family == "albef" and not converted.config.momentum.enabled:
        print("no momentum encoders and queues in it: model.momentum.enabled is false")
    if args.family == "xvlm" and not converted.config.localisation:
        print("no box head in it: model.localisation is false")
    for names, word in ((converted.new, "not in it, at random here"), (converted.unused, "in it, without use here")):
        if names:
            print(f"{len(names)} tensors {word}: {', '.join(names)}")
    if not args.vocab:
        print(f"no vocab.txt in it yet: `relvlm eval` needs bert-base-uncased's in {args.target}")


def _back(args: argparse.Namespace) -> None:
    import torch

    from relvlm.config.load import model_config
    from relvlm.convert.names import TEACHER, TIED
    from relvlm.convert.official import back
    from relvlm.pretrained import checkpoint_folder, read_description, read_teacher, read_tensors

    folder = checkpoint_folder(args.source)
    description = read_description(folder)
    config = model_config(description["model"], str(folder / "config.json"))
    ours: dict[str, Any] = read_tensors(folder / "model.safetensors")
    if config.momentum.enabled:
        state = read_teacher(folder).items()
        ours |= {TEACHER + k: t for k, t in state if isinstance(t, torch.Tensor) and k != TIED}
    parts = {name.split(".")[0] for name in ours}
    for name in (name for name in args.drop if name not in parts):
        raise UserError(f"relvlm convert --drop: {folder} has no part {name!r} (it has {', '.join(sorted(parts))})")
    ours = {k: t for k, t in ours.items() if k.split(".")[0] not in args.drop}
    dtype = getattr(torch, description.get("official", {}).get("dtype", "float32"))
    tensors = back(ours, config, args.family, str(folder))
    tensors = {k: t.to(dtype) if t.is_floating_point() else t for k, t in tensors.items()}
    args.target.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.target.with_name(f".{args.target.name}.tmp")
    try:
        with writing(args.target):
            torch.save({"model": tensors}, temporary)
            temporary.replace(args.target)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{args.target}: {len(tensors)} official tensors")
