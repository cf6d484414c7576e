"""The model card of an export: what it is, how it was made, what it scored, and five lines that load it."""

from __future__ import annotations

import csv
import json
import shlex
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from answering.trained import BASE, SETTINGS, Trained
from artifacts.adapter_files import acting_sha256, read_manifest
from artifacts.base_files import WEIGHTS
from artifacts.base_origin import base_name, whole_path
from artifacts.manifest import MANIFEST, file_sha256
from artifacts.manifest import read_manifest as read_any_manifest
from lightning_modules.families.published import PublishedFamily
from merge.report import table

CLASSES = {True: ("AutoProcessor", "processor"), False: ("AutoTokenizer", "tokenizer")}
PLAIN = {"protocol": "single", "guidelines": ["neutral"], "temperature": 0.0, "samples": 1, "image": ["shown"]}
"""Settings of an examination that its figures hang on, in the plain way."""


@dataclass(frozen=True)
class Card:
    """Writes README.md.

    Attributes:
        trained: what is exported.
        given: the command's options.
    """

    trained: Trained
    given: Namespace

    def write(
        self, folder: Path, family: PublishedFamily, *, dtype: str = "", lost: float = 0.0, rank: int = 0
    ) -> None:
        """Write the card.

        Args:
            folder: of the export, whose other files are there.
            family: the base.
            dtype: of a model's weights.
            lost: share of the updates that rounding took.
            rank: of an adapter.
        """
        named = base_name(self.trained.origin)
        on_hub = "/" in named and not Path(named).exists() and self.trained.origin.get("weights") is None
        kind = f"a LoRA of rank {rank}" if rank else f"a model, weights in {dtype}"
        lines = [
            "---",
            f"library_name: {'peft' if rank else 'transformers'}",
            f"license: {json.dumps(self.given.license)}",
            *([f"base_model: {named}"] if on_hub else []),
            "tags: [medical, vision-language]",
            "---",
            f"# {self.title}",
            "",
            f"{kind[0].upper()}{kind[1:]}, on {named or 'its own base'}. Not fit for use on patients.",
            "",
            "## Load it",
            "",
            "```python",
            *(adapter_lines(self.trained, family) if rank else model_lines(family)),
            "```",
            "",
            *self.made(lost, dtype),
            *self.results(),
            *self.data(),
            "## Licence",
            "",
            f"`{self.given.license}`" + (
                ": nobody has stated one. Those of the base and of the data hold in any case."
                if self.given.license == "unknown"
                else ". Those of the base and of the data hold beside it."
            ),
            "",
        ]  # fmt: skip
        if (folder / WEIGHTS).is_file():
            lines += [f"sha256 of `{WEIGHTS}`: `{file_sha256(folder / WEIGHTS)}`", ""]
        (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")

    @property
    def title(self) -> str:
        """What it is called: a base by the folder of its run."""
        if self.trained.name != BASE:
            return self.trained.name
        folder = self.trained.folder
        return folder.parent.parent.name if folder.name == "base" else folder.name

    def made(self, lost: float, dtype: str) -> list[str]:
        """The stages, and the commands."""
        rows = [[m.get("kind"), m.get("specialty") or "all", steps(m), str((m.get("git") or {}).get("commit", ""))[:12]]
                for m in self.manifests]  # fmt: skip
        command = ["python", "-m", "experiment.export", str(self.given.run)]
        command += ["--adapter"] if self.given.adapter else ["--dtype", self.given.dtype]
        command += ["--base", self.given.base] if self.given.base else []
        rounding = f"Rounding to {dtype} lost {100 * lost:.1f} % of the updates."
        return [
            "## Made of",
            "",
            *(table(["stage", "specialty", "steps", "commit"], rows) if rows else []),
            "```",
            shlex.join([*command, "--out", str(self.given.out)]),
            "```",
            "",
            *([rounding, ""] if lost and dtype != "float32" else []),
        ]

    @property
    def manifests(self) -> list[dict[str, Any]]:
        """Of every stage, the lowest first; a trained base is one."""
        weights = self.trained.origin.get("weights")
        base = [read_any_manifest(Path(str(weights)) / MANIFEST)] if weights is not None else []
        return base + [read_manifest(path) for path in self.trained.adapters]

    def results(self) -> list[str]:
        """Its row of the newest matrix of test questions that has one, beside the base's."""
        for file in self.matrices():
            way = way_of(file.parents[1] / SETTINGS)
            if way is None or not self.is_examined_in(file.parent):
                continue
            with file.open(newline="", encoding="utf-8") as stream:
                rows = {row["model"]: row for row in csv.DictReader(stream) if row.get("model")}
            if self.trained.name in rows:
                own = {name: rows[name] for name in dict.fromkeys((BASE, self.trained.name)) if name in rows}
                told = (
                    f"From `{file.parents[1].name}/evaluation`{way}: accuracy in percent with its 95 % interval, and "
                )
                return ["## Results", "", *result_table(own), f"{told}the number of questions.", ""]
        missing = "Nobody has asked these weights test questions yet (`python train.py --config evaluate.yaml`)."
        return ["## Results", "", missing, ""]

    def matrices(self) -> list[Path]:
        """The matrices of the experiments beside it, newest first."""
        if not self.trained.adapters:
            return []
        folder = self.trained.adapters[-1]
        found = [file for parent in folder.parents[1:4] for file in parent.glob("*/evaluation/matrix.csv")]
        return sorted(found, key=lambda file: file.stat().st_mtime, reverse=True)

    def is_examined_in(self, evaluation: Path) -> bool:
        """Whether a matrix is of these very weights and not of a run's earlier ones, as far as it says."""
        if not (evaluation / MANIFEST).is_file():  # which is written last
            return False
        models = read_any_manifest(evaluation / MANIFEST).get("models")
        if models is None:  # of a version that did not record them
            return True
        return models.get(self.trained.name) == [acting_sha256(path) for path in self.trained.adapters]

    def data(self) -> list[str]:
        """What it was trained on, as far as it is recorded."""
        told = [
            (m.get("kind"), m.get("specialty") or m.get("experiment"), m.get("data_sha256")) for m in self.manifests
        ]
        rows = [[kind, whose, f"`{sha256[:16]}`"] for kind, whose, sha256 in told if isinstance(sha256, str)]
        if not rows:
            return [
                "## Data",
                "",
                "Not recorded here: a merged agent has that of its experts, a base its publisher's.",
                "",
            ]
        return ["## Data", "", *table(["stage", "specialty", "sha256 of the rows"], rows)]


def way_of(settings: Path) -> str | None:
    """How an experiment's questions were asked, where not in the plain way; None where they are no test questions."""
    try:
        callbacks = json.loads(settings.read_text(encoding="utf-8"))["callbacks"].values()
        asked = next(one["init_args"] for one in callbacks if one and one["class_path"].endswith(".EvaluateExperts"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return None
    if asked.get("split") != "test":
        return None
    told = [f"{key} {value}" for key, plain in PLAIN.items() if (value := asked.get(key, plain)) != plain]
    return f" ({', '.join(told)})" if told else ""


def steps(manifest: Mapping[str, Any]) -> str:
    """Optimiser steps of a stage, where it took any."""
    return str((manifest.get("extra") or {}).get("steps", "-"))


def result_table(rows: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Markdown of some rows of a matrix."""
    first = next(iter(rows.values()))
    columns = [key.removesuffix("/accuracy") for key in first if key.endswith("/accuracy")]

    def cell(row: Mapping[str, str], column: str) -> str:
        held = {key: row.get(f"{column}/{key}") for key in ("accuracy", "low", "high", "n")}
        if not held["accuracy"]:
            return "-"
        mean = f"{100 * float(held['accuracy']):.1f}"
        if not (held["low"] and held["high"] and held["n"]):
            return mean
        return f"{mean} [{100 * float(held['low']):.1f}, {100 * float(held['high']):.1f}], n = {held['n']}"

    return table(["model", *columns], [[name, *(cell(row, c) for c in columns)] for name, row in rows.items()])


def model_lines(family: PublishedFamily) -> list[str]:
    """Five lines of plain transformers, in the folder of the export."""
    auto = family.origin.get("checkpoint", {}).get("auto_class", "AutoModelForImageTextToText")
    reader, name = CLASSES[family.image_processor is not None]
    shown = '{"type": "image", "url": "film.png"}, ' if family.image_processor is not None else ""
    content = f'[{shown}{{"type": "text", "text": "Is this normal?"}}]' if shown else '"Is this normal?"'
    return [
        f"from transformers import {auto}, {reader}",
        f'model, {name} = {auto}.from_pretrained("."), {reader}.from_pretrained(".")',
        f'chat = [{{"role": "user", "content": {content}}}]',
        f"inputs = {name}.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True, "
        'return_tensors="pt")',
        f"print({name}.decode(model.generate(**inputs, max_new_tokens=512)[0]))",
    ]


def adapter_lines(trained: Trained, family: PublishedFamily) -> list[str]:
    """The lines that put the adapter on its base, in the folder of the export."""
    auto = family.origin.get("checkpoint", {}).get("auto_class", "AutoModelForImageTextToText")
    settings = trained.origin["init_args"]
    told = [repr(whole_path(str(settings["path"])))]
    told += [f"{key}={settings[key]!r}" for key in ("revision", "dtype") if settings.get(key)]
    reader, name = CLASSES[family.image_processor is not None]
    return [
        "from peft import PeftModel",
        f"from transformers import {auto}, {reader}",
        f"base = {auto}.from_pretrained({', '.join(told)})",
        'model = PeftModel.from_pretrained(base, ".")',
        f'{name} = {reader}.from_pretrained(".")',
    ]
