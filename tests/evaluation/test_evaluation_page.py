# Reference: docs/evaluation.md itself, recomputed. Run: pytest tests/evaluation/test_evaluation_page.py
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from callbacks.evaluate_experts import EvaluateExperts
from configs.load import load
from datamodules.phantoms.chest import ChestFilms
from datamodules.phantoms.head import HeadCTs
from evaluation import compare, readings, rescore, summary
from evaluation.answers import extract
from evaluation.matrix_table import matrix_csv
from evaluation.official import medevalkit, medxpertqa
from evaluation.open_answers import YES_NO, extract_yes_no
from evaluation.predictions import Prediction
from evaluation.scoring import matrix

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
LUNG = ("Tuberculosis", "Sarcoidosis", "Lung abscess", "Pneumothorax")
TEN = (*LUNG, "Asthma", "Pneumonia", "Fibrosis", "Emphysema", "Embolism", "Effusion")


def table(heading: str) -> list[list[str]]:
    """Cells of the table under a heading, its header left out."""
    part = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


STRINGS = table("Where published scorers go wrong")


def read(text: str, right: str, mode: str) -> str:
    """A cell of our columns."""
    if right in YES_NO:
        found = extract_yes_no(text, mode)
        return f"{found.text or '–'} ({found.reason})"
    found = extract(text, TEN if right.endswith("of 10") else LUNG, mode)
    return f"{found.letter or '–'} ({found.reason})"


@pytest.mark.parametrize("row", STRINGS, ids=[row[0] for row in STRINGS])
def test_every_cell_that_can_be_computed_is(row):
    text, right, _, _, theirs, official, strict, lenient = row
    text = text[1:-1].strip() if text.startswith("`") else text
    assert (read(text, right, "strict"), read(text, right, "lenient")) == (strict, lenient)
    options, gold = (TEN if right.endswith("of 10") else LUNG), right.removesuffix(" of 10")
    if theirs:
        found = (
            medevalkit.yes_no(text, gold) if gold in YES_NO else medevalkit.multiple_choice(text, options, gold).right
        )
        assert theirs.strip("*") == ("right" if found else "wrong")
    if official:
        assert official.strip("*") == (medxpertqa.letter(text, len(options)) or "–")


def test_ours_is_wrong_on_none_of_them():
    for text, right, *_, strict, lenient in STRINGS:
        for said in (strict, lenient):
            assert said.split()[0] in ("–", right.split()[0]), text


def test_the_page_lists_every_setting_with_its_default():
    rows = {row[0].strip("`"): row[1] for row in table("Protocol")}
    assert set(rows) == {field.name for field in fields(EvaluateExperts.Config)}
    for field in fields(EvaluateExperts.Config):
        shown = rows[field.name].strip("`").split(" ")[0]
        value = list(field.default) if isinstance(field.default, tuple) else field.default
        plain = "none" if value == [] else re.sub(r"[' ]", "", str(value)).removesuffix(".0")
        assert shown == plain, field.name


COMMANDS = [line for line in PAGE.replace("\\\n", " ").splitlines() if line.startswith("python train.py")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_training_is_understood(command, tmp_path, monkeypatch):
    (tmp_path / "my").mkdir()
    family = "model: {class_path: lightning_modules.families.qwen2_5_vl.Qwen2_5_VL, init_args: {path: published}}\n"
    (tmp_path / "my/qwen.yaml").write_text(family)
    for folder in ("runs/rl_gba/pediatrics/adapter", "runs/rl_gba/merged/regmean/adapter"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "manifest.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    _, _, _, config, *overrides = shlex.split(command)
    assert load(config, overrides).experiment.module is None


RESCORE = [
    shlex.split(line, comments=True) for line in PAGE.splitlines() if line.startswith("python -m evaluation.resc")
]


@pytest.mark.parametrize("command", RESCORE, ids=" ".join)
def test_every_command_of_rescoring_runs_on_the_phantoms(command, tmp_path, monkeypatch, capsys):
    # runs/evaluate, which the page's first command makes, holds answers about the phantoms
    folder = tmp_path / "runs/evaluate/evaluation"
    folder.mkdir(parents=True)
    rows = [
        Prediction(
            "base", name, e.question_id, e.patient_id, "neutral", e.options, e.letter, f"{e.letter}.", tags=dict(e.tags)
        )
        for name, cls in (("adult_medicine", ChestFilms), ("brain_senses", HeadCTs))
        for e in cls(cls.Config(n_patients=40)).splits["test"]
    ]
    (folder / "predictions.jsonl").write_text("".join(row.to_json() + "\n" for row in rows), encoding="utf-8")
    (folder / "matrix.csv").write_text(matrix_csv(matrix(rows)), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert rescore.main(command[3:]) == 0, capsys.readouterr().err
    if "--by" in command:
        assert f"## By {command[command.index('--by') + 1]}" in capsys.readouterr().out


PROGRAMS = {"compare": compare, "rescore": rescore, "readings": readings, "summary": summary}


def test_every_other_command_exists():
    for line in PAGE.splitlines():
        if line.startswith("python -m evaluation."):
            _, _, module, *arguments = shlex.split(line, comments=True)
            program = PROGRAMS[module.rpartition(".")[2]]
            used = {word for word in arguments if word.startswith("--") and word != "--"}
            source = Path(program.__file__).read_text()
            assert all(f'"{word}"' in source for word in used), line
    assert len(COMMANDS) >= 5
    assert len(RESCORE) == 3
