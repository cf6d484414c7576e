"""A trained base as a checkpoint in the hub's layout, which plain transformers loads, and `model: FOLDER` here.

    python -m experiment.export --config tiny_base.yaml --out my_base                    in fp32, as it was trained
    python -m experiment.export --config tiny_base.yaml --out my_base --dtype bfloat16   rounded: half the size

The folder takes its place only after it was loaded again by the family that its config.json names, and answered a
picture and a question as the model that was written does.
"""

from __future__ import annotations

import argparse
import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from artifacts.base_files import READ, WEIGHTS, read_base
from artifacts.durable import folder_in_one_step
from artifacts.interrupts import as_program
from artifacts.manifest import file_sha256
from configs.build import build
from configs.checkpoints import model_of
from configs.load import load
from configs.schema import Component
from datamodules.batch import Example
from experiment.command import add_experiment, ended
from experiment.context import ExperimentContext
from experiment.run import assemble
from guards.arguments import Parser
from lightning_modules.families.published import PublishedFamily
from lightning_modules.policy import Policy

DTYPES = ("float32", "bfloat16")
PROBE = Example("p", (Image.linear_gradient("L").convert("RGB"),), "Is this normal?", ("no", "yes"), "yes", "probe")
"""What the written and the loaded model are compared on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 if it failed; 2 if the configuration or an option is refused; 130 if it was interrupted.
    """
    parser = Parser(
        prog="python -m experiment.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_experiment(parser, "its base is finished")
    parser.add_argument(
        "--out", type=Path, required=True, help="the checkpoint's folder; replaced if it is one already"
    )
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="precision of the stored weights")
    given = parser.parse_intermixed_args(arguments)
    return ended("export", lambda: exported(opened(given), given), "nothing was written")


def opened(given: Namespace) -> ExperimentContext:
    """The experiment that the command line names."""
    loaded = load(given.config, given.overrides)
    torch.set_num_threads(loaded.experiment.threads)
    return assemble(loaded)


def exported(context: ExperimentContext, given: Namespace) -> str:
    """Write the base, load it again and compare; returns what is shown.

    Raises:
        ValueError: the experiment trains no base, or something else stands in the folder.
        DamagedError: the base is not as it was written.
        RuntimeError: the loaded model says something else than the one that was written.
    """
    if context.provides != "base":
        raise ValueError(f"{context.path}: trains no base; name the experiment that does, such as tiny_base.yaml")
    out: Path = given.out
    if out.exists() and (strange := strangers(out)):
        raise ValueError(f"--out {out}: holds something else than a checkpoint ({strange[0]}); name a new folder")
    base = context.folder.run(context.specialties[0]).base
    manifest = read_base(base)
    family = build(context.experiment.model, weights=base)
    for parameter in family.parameters():  # and no buffer: what is computed from the configuration is never rounded
        parameter.data = parameter.data.to(getattr(torch, given.dtype))
    with folder_in_one_step(out) as part:
        write(part, family)
        (part / "README.md").write_text(card(context, manifest, part, given), encoding="utf-8")
        difference = compared(part, family)
    size = sum(file.stat().st_size for file in out.iterdir())
    return (
        f"{out}: {size / 1e6:.1f} MB in {given.dtype}, sha256 of {WEIGHTS} {file_sha256(out / WEIGHTS)}; loaded again, "
        f"its log-probabilities differ by at most {difference:.1e}"
    )


def strangers(out: Path) -> list[str]:
    """What stands in a folder and is no file of a checkpoint, which alone may be replaced."""
    if not out.is_dir() or not (out / "config.json").is_file() or not (out / WEIGHTS).is_file():
        return [f"no config.json and {WEIGHTS}"]
    return sorted(path.name for path in out.iterdir() if not path.is_file() or path.suffix not in (*READ, ".md"))


def write(folder: Path, family: PublishedFamily) -> None:
    """Weights, configuration, tokenizer with its template, picture processor."""
    family.model.save_pretrained(folder)
    family.tokenizer.chat_template = family.template
    family.tokenizer.save_pretrained(folder)
    if family.image_processor is not None:
        family.image_processor.save_pretrained(folder)


def compared(folder: Path, family: PublishedFamily) -> float:
    """Largest difference of log-probabilities, in fp32, between a family and what is loaded from its files.

    Raises:
        RuntimeError: they are not the same model.
    """
    component = model_of(str(folder))
    settings = {**component["init_args"], "dtype": "float32", "system": family.config.system}
    loaded = build(Component(component["class_path"], settings))
    family.float()
    with torch.no_grad():
        ids = loaded.text_ids(PROBE.question)
        said = [Policy(one) for one in (family, loaded)]
        first, second = (policy.score([policy.prompt(PROBE, "")], [ids]).logps for policy in said)
    difference = float((first - second).abs().max())
    if not difference <= 1e-5:  # NaN included
        raise RuntimeError(
            f"{folder}: loaded again it differs from what was written: log-probabilities by {difference:.1e}"
        )
    return difference


def card(context: ExperimentContext, manifest: dict, folder: Path, given: Namespace) -> str:
    """What it is, how it was made, and what its weights hash to."""
    extra = manifest.get("extra") or {}
    config = ["--config", context.path.name, *given.overrides]
    return "\n".join(
        [
            f"# {context.experiment.name}",
            "",
            f"{context.experiment.description}",
            "",
            f"Stored in {given.dtype}; trained for {extra.get('steps', context.steps)} steps by",
            "",
            "```",
            shlex.join(["python", "train.py", *config]),
            shlex.join(["python", "-m", "experiment.export", *config, "--out", str(given.out), "--dtype", given.dtype]),
            "```",
            "",
            f"sha256 of `{WEIGHTS}`: `{file_sha256(folder / WEIGHTS)}`",
            "",
        ]
    )


if __name__ == "__main__":
    as_program(main)
