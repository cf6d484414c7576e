# Reference: the answers themselves; a verifier whose odds are known. Run: pytest tests/judging/test_judging_verify.py
import json
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from answering.grader import Grader
from configs.build import build
from configs.schema import Component
from datamodules.batch import BadExampleError
from datamodules.graded import RIGHT, Graded
from datamodules.hashes import prompt_sha256
from datamodules.phantoms.chest import ChestFilms
from evaluation.choosing import Verified, chosen_table, lines_of
from evaluation.odds import read_odds
from evaluation.predictions import Prediction, read_predictions
from evaluation.report_files import percent
from evaluation.rescore import main as rescore
from evaluation.statistics import mean_interval
from judging.sampled import SampledAnswers
from judging.verified_report import page
from judging.verify import key_of, scored, verify

SET = Component("datamodules.phantoms.chest.ChestFilms", {"n_patients": 40})


@pytest.fixture
def examined(tmp_path):
    """An examination with three answers to each test question: right, wrong, and right with other words."""
    data = ChestFilms(ChestFilms.Config(n_patients=40), specialty="adult")
    lines = []
    for example in data.splits["test"]:
        wrong = next(option for option in example.options if option != example.answer)
        for sample, said in enumerate((example.answer, wrong, example.answer)):
            text = f"<think>number {sample}.</think><answer>{said}</answer>"
            lines.append(
                Prediction(
                    *("m", "adult", example.question_id, example.patient_id, "neutral"),
                    *(example.options, example.letter, text),
                    sample=sample,
                )
            )
    folder = tmp_path / "run" / "evaluation"
    folder.mkdir(parents=True)
    (folder / "predictions.jsonl").write_text("".join(line.to_json() + "\n" for line in lines))
    context = SimpleNamespace(folder=SimpleNamespace(evaluation=folder), data=lambda name: data)
    return folder, lines, context


class Marker(Grader):
    """Odds by the words of an answer; counts what it is asked."""

    def __init__(self, sha="a", objective="outcome"):
        super().__init__(None, (), {}, {"dimensions": [RIGHT], "objective": objective, "sha256": sha})
        object.__setattr__(self, "asked", [])

    @property
    def identity(self):
        return {"head": self.meaning["sha256"]}

    @contextmanager
    def acting(self):
        def grade(asked):
            self.asked.extend(asked)
            return [torch.tensor([[2.0 if "number 2" in text else -1.0] for text in texts]) for _, texts in asked]

        yield grade


def test_answers_are_scored_once_and_the_tables_say_what_follows(examined):
    folder, lines, context = examined
    first = Marker()
    text = verify(context, first)
    n = len(lines) // 3
    assert len(first.asked) == n
    assert all(len(texts) == 3 for _, texts in first.asked)
    by_id = {line.question_id: line for line in lines}
    for example, _ in first.asked:  # options stand as they stood when they were answered
        assert example.options == by_id[example.question_id].options
    assert f"| m | adult | {n} | 3 | 66.7 | 100.0 | 100.0" in text.replace("  ", " ")
    assert {path.name for path in folder.iterdir()} >= {"verified.jsonl", "verified.md", "verified.csv", "verified.png"}
    again = Marker()
    assert verify(context, again, "m") == text
    assert again.asked == []
    moved = replace(lines[0], prompt_sha256="0" * 16)  # the same words about another picture
    assert key_of(moved) != key_of(lines[0])
    other = Marker("b")  # another verifier's scores are not its own
    assert verify(context, other) == text
    assert len(other.asked) == n
    # one more answer is asked for alone
    kept = (folder / "verified.jsonl").read_text().splitlines()
    (folder / "verified.jsonl").write_text("\n".join(kept[:-1]) + "\n")
    third = Marker("b")
    assert verify(context, third) == text
    assert [len(texts) for _, texts in third.asked] == [1]
    (folder / "verified.jsonl").write_text(kept[0] + "\n{\n")
    with pytest.raises(ValueError, match="no file of a verifier's scores"):
        verify(context, Marker("b"))


def test_a_mean_over_specialties_counts_each_once(examined):
    _, lines, _ = examined
    few = [replace(line, specialty="old", model="o") for line in lines[:6]]
    odds = {1: 2.0, 0: -1.0}
    found = lines_of(
        [Verified(item, odds[item.sample == (0 if item.specialty == "adult" else 1)]) for item in lines + few]
    )
    (row,) = [line for line in page(found).splitlines() if line.startswith("| each its own | mean |")]
    # the surest one is right of adult, and wrong of old; both have two right ones of three, and a right majority
    assert row.startswith(f"| each its own | mean | {len(lines) // 3 + 2} | 3 | 66.7 | 100.0 | 100.0 [")
    assert "| 50.0 [" in row
    low, high = found[1].difference[1:]
    wanted = mean_interval([0.0, -1.0], [found[0].difference[1:], (low, high)])
    assert row.endswith(f"| {percent(*wanted, '+')} |")
    assert not [line for line in page(found[:1]).splitlines() if "| mean |" in line]
    same = [replace(line, model="m") for line in few]
    by_model = lines_of([Verified(item, 0.0) for item in [*lines, *few, *same]])
    told = [line for line in page(by_model).splitlines() if "| mean |" in line]
    assert [line.split(" | ")[0] for line in told] == ["| m"]


def test_what_the_verifier_chooses_stands_in_the_examination_s_report(examined, capsys):
    folder, lines, context = examined
    assert rescore([str(folder.parent)]) == 0
    assert "Chosen by a verifier" not in capsys.readouterr().out
    verify(context, Marker())
    assert rescore([str(folder.parent)]) == 0
    told = capsys.readouterr().out
    (row,) = [line for line in told[told.index("## Chosen by a verifier") :].splitlines() if line.startswith("| m ")]
    n = len(lines) // 3
    # pass@1 2 of 3, pass@3 all; two of three answers are right, and the surest one is
    assert row.startswith(f"| m | adult | {n} | 3 | 66.7 | 100.0 | 100.0 [")
    assert row.count("| 100.0 [") == 3
    assert "| +0.0 [" in row
    parts = {"m": {"adult": lines}}
    odds = read_odds(folder.parent)
    assert chosen_table(parts, odds).rows
    assert not chosen_table(parts, {key: odds[key] for key in list(odds)[1:]}).rows  # one answer without odds
    assert not chosen_table({"m": {"adult": lines[:-1]}}, odds).rows  # a question with fewer answers than others
    assert not chosen_table({"m": {"adult": lines[::3]}}, odds).rows  # one answer each


def test_what_cannot_be_verified_is_refused(examined):
    _, _, context = examined
    with pytest.raises(ValueError, match="learnt preference on right; a verifier has objective: outcome"):
        verify(context, Marker(objective="preference"))
    smaller = ChestFilms(ChestFilms.Config(n_patients=20))
    context.data = lambda name: smaller
    with pytest.raises(BadExampleError, match="is not there as it was answered: the data set lacks it"):
        verify(context, Marker())


def sampled(folder, **options):
    config = {"predictions": str(folder), "questions": {"adult": SET}, "val_fraction": 0.3} | options
    return SampledAnswers(SampledAnswers.Config(**config), specialty="verifier")


def test_sampled_answers_are_graded_by_the_main_score(examined):
    folder, lines, _ = examined
    data = sampled(folder)
    found = [example for split in ("train", "val") for example in data.splits[split]]
    assert len(found) == len(lines) // 3
    assert not data.splits["test"]
    assert not {e.patient_id for e in data.splits["train"]} & {e.patient_id for e in data.splits["val"]}
    by_id = {(line.question_id, line.sample): line for line in lines}
    for example in found:
        assert isinstance(example, Graded)
        assert example.grades == {RIGHT: (1.0, 0.0, 1.0)}
        own = example.question_id.removeprefix("adult/")
        assert example.answers == tuple(by_id[own, sample].completion for sample in range(3))
        assert example.options == by_id[own, 0].options


@pytest.mark.parametrize("changed", ["difficulty", "picture"])
def test_answers_to_other_cases_under_the_same_ids_are_refused(tmp_path, changed):
    # Of spines right answers hang on the difficulty; of picture files the hash stands in the predictions.
    if changed == "difficulty":
        init_args = {"n_patients": 40}
        component = Component("datamodules.phantoms.spine.SpineFilms", init_args)
    else:
        rows = ["question,answer,film", *(f"Wide {number}?,yes,{number}.png" for number in range(40))]
        (tmp_path / "questions.csv").write_text("\n".join(rows) + "\n")
        for number in range(40):
            Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
        init_args = {
            "root": str(tmp_path),
            "choices": ("yes", "no"),
            "columns": {"question": "question", "answer": "answer", "images": ["film"]},
        }
        component = Component("datamodules.table.Table", init_args)
    data = build(component, specialty="adult")
    lines = [
        Prediction(
            *("m", "adult", example.question_id, example.patient_id, "neutral"),
            *(example.options, example.letter, f"<think>so.</think><answer>{example.answer}</answer>"),
            sample=sample,
            prompt_sha256=prompt_sha256(example, ""),
        ).to_json()
        for held in data.splits.values()
        for example in held
        for sample in range(2)
    ]
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/predictions.jsonl").write_text("\n".join(lines) + "\n")
    context = SimpleNamespace(
        folder=SimpleNamespace(evaluation=tmp_path / "evaluation"), data=lambda name: build(component, specialty=name)
    )
    assert len(sampled(tmp_path, questions={"adult": component}).splits["train"]) > 0
    assert list(scored(context, Marker(), read_predictions(tmp_path)))
    if changed == "difficulty":
        init_args["difficulty"] = 0.9
    else:
        Image.new("L", (8, 8), 255).save(tmp_path / "7.png")
    with pytest.raises(BadExampleError, match="is not there as it was answered"):
        _ = sampled(tmp_path, questions={"adult": component}).splits
    with pytest.raises(BadExampleError, match="is not there as it was answered"):
        list(scored(context, Marker(), read_predictions(tmp_path)))


def test_answers_of_others_are_refused(examined):
    folder, lines, _ = examined
    with pytest.raises(BadExampleError, match=r"model='x' has no answer on adult; rows: m"):
        _ = sampled(folder, model="x").splits
    fewer = Component(SET.class_path, {"n_patients": 20})
    with pytest.raises(BadExampleError, match="is not there as it was answered: the data set lacks it"):
        _ = sampled(folder, questions={"adult": fewer}).splits
    with pytest.raises(ValueError, match="predictions must name an examined experiment"):
        SampledAnswers.Config()
    with pytest.raises(ValueError, match="shuffle_options must stay off"):
        sampled(folder, shuffle_options=True)
    moved = json.loads(lines[0].to_json()) | {"model": "other"}
    with open(folder / "predictions.jsonl", "a") as file:
        file.write(json.dumps(moved) + "\n")
    with pytest.raises(BadExampleError, match="name the row whose answers are taken as `model`: m, other"):
        _ = sampled(folder).splits
    assert len(sampled(folder, model="m").splits["train"]) > 0
