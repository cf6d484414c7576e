"""What was trained as a folder in the hub's layout, which plain transformers and PEFT load: a model, or an adapter.

    python -m experiment.export runs/rl_gba/pediatrics --out exported            base and updates added up, in fp32
    python -m experiment.export runs/rl_gba/pediatrics --adapter --out exported  one LoRA for the whole chain of stages
    python -m experiment.export runs/tiny_base/mixed --out my_base --dtype bfloat16           a base, at half the size

The folder takes its place only after plain transformers, or PEFT, has loaded it and given the logits of what was
exported.
"""

from __future__ import annotations

import argparse
import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from answering.trained import Trained, one
from artifacts.adapter_files import WEIGHTS as ADAPTER_WEIGHTS
from artifacts.base_files import READ, WEIGHTS
from artifacts.durable import flush, folder_in_one_step
from artifacts.interrupts import as_program
from artifacts.manifest import file_sha256
from experiment.command import ended
from experiment.export_card import Card
from experiment.export_check import ADAPTER_FILES, compare, plain_logits, with_adapters
from experiment.export_parts import folded, published_family, summed, write_adapter_files, write_model, write_reading
from guards.arguments import Parser

DTYPES = ("float32", "bfloat16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 if it failed, or what is named is no run; 2 if an option is refused; 130 if it was interrupted.
    """
    parser = Parser(
        prog="python -m experiment.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", help="folder of a run, a merged agent or an adapter; or a base: folder or hub id")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; replaced if it is an export already")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--merged", action="store_true", help="base and updates as one model (the default)")
    kind.add_argument("--adapter", action="store_true", help="one LoRA, whose rank is the sum of the stages' ranks")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the stored weights of a model")
    parser.add_argument(
        "--base", default="", help="checkpoint or folder of a trained base, where it is not found again"
    )
    parser.add_argument("--license", default="unknown", help="of the export, as the hub calls it, for the card")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    return ended("export", lambda: exported(one(given.run, given.base), given), "nothing was written")


def exported(trained: Trained, given: Namespace) -> str:
    """Write what was trained, load it as anybody would, and compare; returns what is shown.

    Raises:
        ValueError: it has no form that others load, or something else stands in the folder.
        AdapterError: an adapter is not as it was written, or of another base.
        RuntimeError: what was loaded says something else than what was exported.
    """
    out: Path = given.out
    if out.exists() and (strange := strangers(out)):
        raise ValueError(f"--out {out}: holds something else than an export ({strange[0]}); name a new folder")
    if given.adapter and not trained.adapters:
        raise ValueError(f"{given.run}: is a base, and has no adapter; leave --adapter out")
    if given.adapter and trained.origin.get("weights") is not None:
        raise ValueError(
            f"{trained.name}: its base was trained here and stands nowhere as a checkpoint, on which others could load "
            f"an adapter. First: python -m experiment.export {shlex.quote(str(trained.origin['weights']))} --out "
            "BASE, and then give --base BASE; or leave --adapter out"
        )
    card = Card(trained, given)
    with folder_in_one_step(out) as part:
        text = as_adapter(trained, part, card) if given.adapter else as_model(trained, part, card, given.dtype)
        for file in part.iterdir():
            flush(file)
    weights = ADAPTER_WEIGHTS if given.adapter else WEIGHTS
    size = sum(file.stat().st_size for file in out.iterdir())
    hashed = f", sha256 of {weights} {file_sha256(out / weights)}" if (out / weights).is_file() else ""
    return f"{out}: {size / 1e6:.1f} MB{hashed}; {text}"


def as_model(trained: Trained, folder: Path, card: Card, dtype: str) -> str:
    """Write the base with the updates added; arguments and errors as of `exported`, returns what is told of it."""
    unchanged = not trained.adapters and dtype == "float32"
    exact = None if unchanged else with_adapters(trained, published_family(trained))
    family, lost = folded(trained, getattr(torch, dtype))
    write_reading(folder, family)
    write_model(folder, family)
    card.write(folder, family, dtype=dtype, lost=lost)
    kept = with_adapters(trained.bare, family)
    del family
    difference = compare(plain_logits(folder, kept), kept, "loaded again by plain transformers")
    told = f"loaded again by plain transformers, its log-probabilities differ by at most {difference:.1e}"
    if exact is None:
        return f"in {dtype}; {told}"
    limited = dtype == "float32"
    rounding = compare(kept.logits, exact, "with its updates added up", limited=limited)
    lost_words = f" ({100 * lost:.1f} % of the updates is lost in rounding)" if lost and not limited else ""
    return f"in {dtype}{lost_words}; {told}, and from those before the export by at most {rounding:.1e}"


def as_adapter(trained: Trained, folder: Path, card: Card) -> str:
    """Write the chain of adapters as one; arguments and errors as of `exported`, returns what is told of it."""
    family = published_family(trained)
    rank = write_adapter_files(folder, summed(trained, family), trained)
    write_reading(folder, family)
    card.write(folder, family, rank=rank)
    exact = with_adapters(trained, family)
    del family
    difference = compare(plain_logits(folder, exact, base=trained), exact, "loaded again by PEFT")
    return (
        f"{len(trained.adapters)} stage(s) in one LoRA of rank {rank}; loaded again by PEFT, its log-probabilities "
        f"differ by at most {difference:.1e}"
    )


def strangers(out: Path) -> list[str]:
    """What stands in a folder and is no file of an export, which alone may be replaced."""
    if not out.is_dir() or not any((out / name).is_file() for name in (WEIGHTS, *ADAPTER_FILES, "config.json")):
        return ["no weights of a model or an adapter"]
    return sorted(path.name for path in out.iterdir() if not path.is_file() or path.suffix not in (*READ, ".md"))


if __name__ == "__main__":
    as_program(main)
