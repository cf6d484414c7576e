"""Made free answers whose worth is known: `python -m judging.made_open FOLDER` writes an examination of them.

Every question has answers that are right (as written, dressed, in a sentence, in other words) and wrong ones (another
answer, denied, two at once, only half of it, none). So rules are held against the truth, which the command prints, and
so is any judge: `python -m judging.rubric --config judging/open.yaml run=FOLDER out=…`. The folder has the shape of
VQA-RAD and of an experiment; its pictures are grey, and no judge of answers is shown them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from evaluation.predictions import Prediction
from guards.arguments import Parser
from judging.open_table import TRUTH, agreement_table

SPECIALTY = "made"
BANK: Sequence[tuple[str, str, Sequence[str], Sequence[str], str]] = (
    # question, right answer, the same in other words, wrong answers, half of the answer
    ("Which lung is collapsed?", "left lung", ("the lung on the left side", "left-sided one"), ("right lung",), "lung"),
    ("Where is the mass?", "right upper lobe", ("RUL", "upper lobe on the right"), ("right lower lobe",), "upper lobe"),
    ("What is seen in the pleura?", "pleural effusion", ("fluid in the pleural space",), ("pneumothorax",), "pleura"),
    ("What is wrong with the heart?", "cardiomegaly", ("enlarged heart",), ("pericardial calcification",), "heart"),
    ("Which imaging is this?", "CT", ("computed tomography",), ("MRI", "X-ray"), "a scan"),
    ("Which plane is this?", "axial", ("transverse",), ("coronal", "sagittal"), "a plane"),
    ("What lies along the skull?", "subdural haematoma", ("SDH", "bleeding under the dura"), ("epidural haematoma",),
     "haematoma"),
    ("Which vessel is blocked?", "left middle cerebral artery", ("left MCA",), ("right middle cerebral artery",),
     "cerebral artery"),
    ("Which organ lies below the diaphragm?", "liver", ("hepatic tissue",), ("spleen", "stomach"), "organ"),
    ("What fills the gallbladder?", "gallstones", ("cholelithiasis",), ("polyps",), "stones"),
    ("Which receptor does the slide show?", "ER+", ("oestrogen receptor positive",), ("ER-",), "a receptor"),
    ("How large is the nodule?", "8 mm", ("0.8 cm", "eight millimetres"), ("18 mm", "8 cm"), "mm"),
    ("Which hepatitis is it?", "hepatitis A", ("HAV infection",), ("hepatitis B",), "hepatitis"),
    ("What is broken?", "left femoral neck", ("neck of the left femur",), ("right femoral neck",), "femoral neck"),
    ("What does the spine show?", "scoliosis", ("sideways curve of the spine",), ("kyphosis",), "curve"),
    ("What is in the airway?", "endotracheal tube", ("ETT", "breathing tube"), ("nasogastric tube",), "tube"),
)  # fmt: skip


def answers_of(gold: str, same: Sequence[str], wrong: Sequence[str], half: str) -> Iterator[tuple[str, str, bool]]:
    """(kind, what is answered, whether it is right) of every made answer to a question."""
    yield "as written", gold, True
    yield "dressed", f"The {gold[:1].upper()}{gold[1:]}.", True
    yield "in a sentence", f"this is most likely {gold}", True
    yield from (("in other words", text, True) for text in same)
    yield from (("another", text, False) for text in wrong)
    yield "denied", f"not {gold}", False
    yield "two at once", f"{gold} or {wrong[0]}", False
    yield "half", half, False
    yield "none", "cannot be determined", False


def made_answers() -> list[Prediction]:
    """All made answers; the kind is the model's name, so that each has rows of its own."""
    found = []
    for number, (_, gold, same, wrong, half) in enumerate(BANK):
        for place, (kind, text, right) in enumerate(answers_of(gold, same, wrong, half)):
            found.append(
                Prediction(
                    model="made",
                    specialty=SPECIALTY,
                    question_id=f"vqarad-test-{number + 1}",
                    patient_id=f"{number}.png",
                    guideline="neutral",
                    options=(),
                    answer_letter="",
                    completion=f"<think>It can be seen.</think><answer>{text}</answer>",
                    tags={TRUTH: "right" if right else "wrong", "question_type": kind},
                    answer=gold,
                    sample=place,
                )
            )
    return found


def write_made(folder: Path) -> Path:
    """Write the examination and its data; returns the folder."""
    (folder / "evaluation").mkdir(parents=True, exist_ok=True)
    (folder / "data/images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (question, gold, *_) in enumerate(BANK):
        Image.new("RGB", (32, 32), (8 * number, 90, 90)).save(folder / f"data/images/{number}.png")
        rows.append({"image": f"{number}.png", "question": question, "answer": gold})
    (folder / "data/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    component = {
        "class_path": "datamodules.vqa_rad.VQARad",
        "init_args": {"root": str(folder / "data"), "questions": "open"},
    }
    settings = json.dumps({"specialties": {SPECIALTY: component}}, indent=1)
    (folder / "experiment.json").write_text(settings + "\n", encoding="utf-8")
    lines = "".join(item.to_json() + "\n" for item in made_answers())
    (folder / "evaluation/predictions.jsonl").write_text(lines, encoding="utf-8")
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = Parser(prog="python -m judging.made_open", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    write_made(given.folder)
    answers = made_answers()
    truth = {(item.model, item.key): item.tags[TRUTH] == "right" for item in answers}
    print(agreement_table(answers, truth, "truth"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
