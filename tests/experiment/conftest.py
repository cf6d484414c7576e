# Shared by the tests of the whole machine: two made specialties on disk, experiments on a very small model, and
# one finished lineage (base -> dsa -> gba -> merge -> matrix) that tests read and, when they break things, copy.
import csv
import shutil
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageDraw

import train

SOURCE = '''"""Made for tests: a bar in a picture; rows of questions.csv under the root."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass

from datamodules.base import VQADataModule
from datamodules.batch import Example
from datamodules.graded import Graded

GUIDELINES = ("differential", "intuitive", "analytical", "bayesian")


class Bars(VQADataModule):
    """Is the bar short, middling or long?"""

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """Options."""

        names: tuple[str, ...] = GUIDELINES
        """Guidelines with traces."""

    def examples(self):
        with open(self.root / "questions.csv", newline="") as file:
            for row in csv.DictReader(file):
                trace = f"bar {row['length']}, {row['answer']}."
                yield Example(
                    row["patient_id"],
                    (self.root / row["file"],),
                    row["question"],
                    tuple(row[letter] for letter in "ABC"),
                    row["answer"],
                    row["question_id"],
                    {name: trace for name in self.config.names},
                    {"kind": row["answer"]},
                )


class Pairs(Bars):
    """A right and a wrong reading of each bar."""

    def examples(self):
        for row in super().examples():
            wrong = next(option for option in row.options if option != row.answer)
            answers = tuple(f"bar 20, {answer}." for answer in (row.answer, wrong))
            own = (row.patient_id, row.images, row.question, row.options, row.answer, row.question_id)
            yield Graded(*own, answers=answers, grades={"accuracy": (1.0, 0.0), "overall": (2.0, 1.0)})


def corpus() -> Iterator[str]:
    """Texts for the tokenizer."""
    for length in range(56):
        yield f"how long is the bar?\\nA) short\\nB) middling\\nC) long\\nuser\\nassistant\\nreason by differential"
        yield f"<think>bar {length}, middling, option B.</think><answer>B</answer>"
'''
SIZES = {
    "corpus": "made_bars.corpus",
    "vocab_size": 400,
    "hidden": 64,
    "layers": 2,
    "heads": 4,
    "intermediate": 96,
    "vision_hidden": 32,
    "vision_layers": 2,
    "pixels": 3136,
}
ANSWERS = ("short", "middling", "long")


def write_bars(root: Path, prefix: str, patients: int = 24) -> None:
    """One specialty: a picture and a question per patient."""
    root.mkdir(parents=True)
    shade = 20 + ord(prefix) - ord("a")  # no two specialties share a picture
    with open(root / "questions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient_id", "file", "question", *"ABC", "answer", "question_id", "length"])
        for index in range(patients):
            length, name = 4 + 2 * index % 48, f"{prefix}{index:02d}.png"
            image = Image.new("RGB", (56, 56), (20, 20, shade))
            ImageDraw.Draw(image).rectangle((2, 20, 2 + length, 34), fill=(240, 240, 200))
            image.save(root / name)
            answer = ANSWERS[min(2, length // 18)]
            patient = f"{prefix}{index:02d}"
            writer.writerow([patient, name, "how long is the bar?", *ANSWERS, answer, f"{patient}-q", length])


def bars(root: Path, **options) -> dict:
    """A specialty's entry in an experiment file."""
    return {"class_path": "made_bars.Bars", "init_args": {"root": str(root), **options}}


def experiments(folder: Path) -> dict[str, dict]:
    """The experiment files by name."""
    shared = {
        "trust": ["made_bars"],
        "model": {"class_path": "lightning_modules.families.tiny.TinyQwen2_5_VL", "init_args": SIZES},
        "data": {"batch_size": 2, "val_fraction": 0.2, "test_fraction": 0.25},
        "specialties": {name: bars(folder / "data" / name) for name in ("alpha", "beta")},
        "trainer": {"max_steps": 2, "log_every_n_steps": 1},
    }
    cards = {"class_path": "callbacks.completion_cards.CompletionCards", "init_args": {"slots": 2, "every": 2}}
    layout = {"class_path": "callbacks.layout.ScalarLayout"}
    merges = {
        "ties": {"class_path": "merge.methods.ties.Ties"},
        "task_arithmetic": {"class_path": "merge.methods.task_arithmetic.TaskArithmetic"},
    }
    lora = {"lora_rank": 2, "lora_alpha": 4.0}
    gba = {
        **lora,
        "guidelines": ["differential", "bayesian"],
        "rollouts_per_guideline": 2,
        "questions_per_step": 2,
        "max_new_tokens": 20,
        "learning_rate": 0.01,
        "temperature": 0.6,
    }
    mixed = bars(folder / "data" / "alpha", names=["neutral"])
    evaluate = {
        "class_path": "callbacks.evaluate_experts.EvaluateExperts",
        "init_args": {"n": 4, "max_new_tokens": 20},
    }
    return {
        "base": shared
        | {
            "specialties": {"mixed": mixed},
            "module": {
                "class_path": "lightning_modules.base_training.BaseTraining",
                "init_args": {"learning_rate": 0.01, "muon_rate": 0.02, "warmup": 2},
            },
            "data": shared["data"] | {"batch_size": 8},
            "trainer": {"max_steps": 40, "log_every_n_steps": 10},  # until answers are well-formed: rewards must vary
        },
        "dsa": shared
        | {
            "requires": ["base.yaml"],
            "module": {"class_path": "lightning_modules.sft_lora.SFTLoRA", "init_args": lora},
            "callbacks": {"cards": cards},
        },
        "gba": shared
        | {
            "requires": ["dsa.yaml"],
            "module": {"class_path": "lightning_modules.rl_gba.GBA", "init_args": gba},
            "callbacks": {
                "cards": cards,
                "layout": layout,
                "merge": {
                    "class_path": "callbacks.merge_experts.MergeExperts",
                    "init_args": {"methods": merges, "gate": "warn", "pictures": False},
                },
                "evaluate": evaluate,
            },
        },
        "integrate": shared
        | {
            "requires": ["gba.yaml"],
            "module": {
                "class_path": "lightning_modules.distillation.Integrate",
                "init_args": {
                    "start": "task_arithmetic",
                    "gate": "none",  # experts of two steps are hardly ever right
                    "questions_per_specialty": 2,
                    "max_new_tokens": 20,
                    "learning_rate": 0.01,
                },
            },
            "callbacks": {"cards": cards, "evaluate": evaluate},
        },
        "judge": shared
        | {
            "requires": ["base.yaml"],
            "specialties": {"judge": bars(folder / "data" / "alpha") | {"class_path": "made_bars.Pairs"}},
            "module": {
                "class_path": "lightning_modules.reward_model.RewardModel",
                "init_args": lora | {"dimensions": ["accuracy", "overall"]},
            },
        },
        "joint": shared
        | {
            "requires": ["base.yaml"],
            "train": "mixed",
            "module": {"class_path": "lightning_modules.sft_lora.SFTLoRA", "init_args": lora},
            "callbacks": {"cards": cards, "evaluate": evaluate},
        },
        "joint_rl": shared
        | {
            "requires": ["joint.yaml"],
            "train": "mixed",
            "module": {"class_path": "lightning_modules.rl_gba.GBA", "init_args": gba},
            "callbacks": {"cards": cards, "layout": layout, "evaluate": evaluate},
        },
    }


@dataclass(frozen=True)
class Machine:
    """Experiment files and the folder that their runs go to."""

    files: Path
    runs: Path

    def run(self, name: str, *overrides: str) -> int:
        """`train.py --config <name>.yaml ...` in this process; returns the exit code."""
        return train.main(["--config", str(self.files / f"{name}.yaml"), f"runs_dir={self.runs}", *overrides])

    def at(self, runs: Path) -> "Machine":
        """The same files, other runs."""
        return replace(self, runs=runs)

    def copy(self, runs: Path) -> "Machine":
        """The same files, a copy of the runs to break."""
        shutil.copytree(self.runs, runs)
        return self.at(runs)

    def without(self, *parts: str) -> "Machine":
        """Take folders or files out of the runs."""
        for part in parts:
            path = self.runs / part
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return self

    def write(self, files: Path, name: str, **changes) -> "Machine":
        """A further experiment beside copies of those: one of them with some keys replaced."""
        shutil.copytree(self.files, files, dirs_exist_ok=True)
        content = yaml.safe_load((self.files / f"{name}.yaml").read_text()) | changes
        (files / f"{name}.yaml").write_text(yaml.safe_dump(content))
        return replace(self, files=files)

    def merge(self, files: Path, **options) -> "Machine":
        """The lineage with further options of its merge."""
        callbacks = yaml.safe_load((self.files / "gba.yaml").read_text())["callbacks"]
        callbacks["merge"]["init_args"] |= options
        return self.write(files, "gba", callbacks=callbacks)


@pytest.fixture(scope="session")
def bars_module(tmp_path_factory):
    """The made DataModule, importable; returns the folder that it lies in."""
    folder = tmp_path_factory.mktemp("machine")
    (folder / "made_bars.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def machine(bars_module):
    """Data and experiment files; nothing has run."""
    for name in ("alpha", "beta"):
        write_bars(bars_module / "data" / name, name[0])
    files = bars_module / "files"
    files.mkdir()
    for name, content in experiments(bars_module).items():
        (files / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return Machine(files, bars_module / "none")


@pytest.fixture(scope="session")
def based(machine, tmp_path_factory):
    """Only the base is trained."""
    made = machine.at(tmp_path_factory.mktemp("based"))
    assert made.run("base") == 0
    return made


@pytest.fixture(scope="session")
def lineage(based, tmp_path_factory):
    """Everything has run: read it, do not change it."""
    made = based.copy(tmp_path_factory.mktemp("lineage") / "runs")
    assert made.run("gba") == 0
    return made


@pytest.fixture(autouse=True)
def _signals():
    """Lightning ignores SIGINT once it has seen one; give it back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Path -> (time of change, bytes) of every file but locks and remembered checks, which take no files just made."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    files = (path for path in files if path.parent.name != ".checked")
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
