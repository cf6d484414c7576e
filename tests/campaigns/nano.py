"""The smallest lineage that there is: bars in pictures, a model of one layer, a few steps of each stage.

Experiments: `base` (trained long enough that rewards vary), `short` (a base of three steps), `dsa`, `gba` on top of
it, `agent` (the same, with merges and the matrix), and `whole` (all of it from `short`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from typing_extensions import override

from datamodules.base import VQADataModule
from datamodules.batch import Example

ANSWERS = ("short", "middling", "long")
GUIDELINES = ("differential", "bayesian")
SPECIALTIES = ("alpha", "beta")
SIZES = {
    "corpus": "tests.campaigns.nano.corpus",
    "vocab_size": 400,
    "hidden": 32,
    "layers": 1,
    "heads": 2,
    "intermediate": 48,
    "vision_hidden": 32,
    "vision_layers": 1,
    "pixels": 3136,
}


class Bars(VQADataModule):
    """Is the bar short, middling or long?"""

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """Options."""

        names: tuple[str, ...] = GUIDELINES
        """Guidelines with traces."""

    @override
    def examples(self) -> Iterator[Example]:
        with open(self.root / "questions.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                trace = f"bar {row['length']}, {row['answer']}."
                yield Example(
                    row["patient_id"],
                    (self.root / row["file"],),
                    "how long is the bar?",
                    ANSWERS,
                    row["answer"],
                    row["patient_id"],
                    dict.fromkeys(self.config.names, trace),
                )


def corpus() -> Iterator[str]:
    """Texts for the tokenizer."""
    for length in range(56):
        yield f"how long is the bar?\nA) short\nB) middling\nC) long\nuser\nassistant\nreason by differential {length}"
        yield f"<think>bar {length}, middling.</think><answer>B</answer>"


def write_bars(root: Path, prefix: str, patients: int = 20) -> None:
    """One specialty: a picture and a question per patient."""
    root.mkdir(parents=True)
    with open(root / "questions.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["patient_id", "file", "answer", "length"])
        for index in range(patients):
            length, patient = 4 + 2 * index % 48, f"{prefix}{index:02d}"
            shade = 20 + ord(prefix[0]) - ord("a")  # no two specialties share a picture
            image = Image.new("RGB", (56, 56), (20, 20, shade))
            ImageDraw.Draw(image).rectangle((2, 20, 2 + length, 34), fill=(240, 240, 200))
            image.save(root / f"{patient}.png")
            writer.writerow([patient, f"{patient}.png", ANSWERS[min(2, length // 18)], length])


def stage(path: str, **options: Any) -> dict[str, Any]:
    """A component of an experiment file."""
    return {"class_path": path, "init_args": options} if options else {"class_path": path}


def experiments(folder: Path) -> dict[str, dict[str, Any]]:
    """The experiment files by name."""
    bars = {name: stage("tests.campaigns.nano.Bars", root=str(folder / "data" / name)) for name in SPECIALTIES}
    shared = {
        "trust": ["tests"],
        "runs_dir": str(folder / "runs"),
        "model": stage("lightning_modules.families.tiny.TinyQwen2_5_VL", **SIZES),
        "data": {"batch_size": 2, "val_fraction": 0.2, "test_fraction": 0.25},
        "specialties": bars,
        "fit": {"val_every": 2, "val_max_new_tokens": 4, "checkpoint_every_steps": 1},
        "trainer": {"max_steps": 3, "log_every_n_steps": 1},
    }
    cards = {"cards": stage("callbacks.completion_cards.CompletionCards", slots=1, every=2)}
    training = stage("lightning_modules.base_training.BaseTraining", learning_rate=0.01, muon_rate=0.02, warmup=2)
    base = shared | {
        "specialties": {
            "mixed": stage("tests.campaigns.nano.Bars", root=str(folder / "data" / "mixed"), names=["neutral"])
        },
        "data": shared["data"] | {"batch_size": 8},
        "module": training,
    }
    lora = {"lora_rank": 2, "lora_alpha": 4.0, "guidelines": list(GUIDELINES)}
    dsa = shared | {"module": stage("lightning_modules.sft_lora.SFTLoRA", **lora), "callbacks": cards}
    rollouts = {"rollouts_per_guideline": 2, "questions_per_step": 2, "max_new_tokens": 20, "temperature": 0.6}
    gba = shared | {
        "module": stage("lightning_modules.rl_gba.GBA", **lora, **rollouts, learning_rate=0.01),
        "callbacks": cards,
    }
    ending = {
        "layout": stage("callbacks.layout.ScalarLayout"),
        "merge": stage(
            "callbacks.merge_experts.MergeExperts",
            methods={"ties": stage("merge.methods.ties.Ties")},
            presets=["regmean"],
            gate="warn",
            gate_n=2,
            gram_rows=4,
        ),
        "evaluate": stage("callbacks.evaluate_experts.EvaluateExperts", n=3, max_new_tokens=20, rows_at_once=2),
    }
    few = {**rollouts, "max_new_tokens": 6}
    return {
        "base": base
        | {"fit": {**shared["fit"], "val_every": 0}, "trainer": {"max_steps": 60, "log_every_n_steps": 20}},
        "short": base,
        "dsa": dsa | {"requires": ["base.yaml"]},
        "gba": gba | {"requires": ["dsa.yaml"]},
        "agent": gba | {"requires": ["dsa.yaml"], "callbacks": {**cards, **ending}},
        "dsa_short": dsa | {"requires": ["short.yaml"], "trainer": {"max_steps": 1, "log_every_n_steps": 1}},
        "whole": gba
        | {
            "requires": ["dsa_short.yaml"],
            "module": stage("lightning_modules.rl_gba.GBA", **lora, **few),
            "callbacks": {**cards, **ending},
            "trainer": {"max_steps": 1, "log_every_n_steps": 1},
        },
    }


def write(folder: Path) -> None:
    """Pictures, experiment files, a recipe and a curation, all below `folder`; their results go to `folder`/runs."""
    for name in (*SPECIALTIES, "mixed"):
        write_bars(folder / "data" / name, name)
    runs = folder / "runs"
    adapters = {name: [str(runs / stage / name / "adapter") for stage in ("dsa", "agent")] for name in SPECIALTIES}
    recipe = {"sources": adapters, "method": stage("merge.methods.ties.Ties"), "gate": "warn", "rank": 2}
    local = stage(
        "curation.local.LocalModel",
        config=str(folder / "dsa.yaml"),
        adapters=[str(runs / "dsa" / "alpha" / "adapter")],
        max_new_tokens=20,
        rows_at_once=4,
        temperature=0.5,
    )
    pool = {
        "data": stage("tests.campaigns.nano.Bars", root=str(folder / "data" / "alpha")),
        "source": "made",
        "licence": "none",
    }
    curation = {
        "trust": ["tests"],
        "out": str(runs / "set"),
        "pools": {"alpha": pool},
        "teacher": local,
        "base": stage("curation.local.LocalModel", config=str(folder / "dsa.yaml"), max_new_tokens=20, rows_at_once=4),
        "samples": 2,
        "pass_rate": [0.0, 1.0],
        "min_adherence": 0.0,
        "limit": 6,
        "guidelines": list(GUIDELINES),
        "rules": str(folder / "rules.yaml"),
    }
    rules = {"tag_points": 1, "specialties": {"pediatrics": {"describes": "Bars", "phrases": ["bar"]}}}
    others = {"merge": recipe | {"out": str(runs / "by_hand")}, "curation": curation, "rules": rules}
    for name, content in (experiments(folder) | others).items():
        (folder / f"{name}.yaml").write_text(json.dumps(content, indent=2), encoding="utf-8")  # JSON is YAML
