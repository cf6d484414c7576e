"""Reference: traces written by hand, and the generators' own with known flaws.

Run: pytest tests/judging/test_reasons.py.
"""

import json
from dataclasses import replace

import pytest

from datamodules.batch import LETTERS
from datamodules.phantoms.base import phantom_classes
from datamodules.phantoms.chest import ChestFilms
from datamodules.phantoms.clinic import PATTERN, Clinic
from datamodules.phantoms.spine import SpineFilms
from evaluation.predictions import Prediction, read_predictions
from judging.by_rule import read_by_rule
from judging.flaws import FLAWS, SEEN, answered, made_traces
from judging.reasoning import Reasoning
from judging.reasons import main
from judging.reasons_table import reasons_table

SETS = (*phantom_classes(), Clinic)


def read(data, example, thinking, answer=None):
    completion = f"<think>{thinking}</think><answer>{answer or example.answer}</answer>"
    return read_by_rule(answered(example, completion), data.truth(example), data.bodies())


def scoliosis():
    """A child whose curve bends clearly, to be graded."""
    data = SpineFilms(SpineFilms.Config(n_patients=60))
    return data, next(
        e for e in data.examples() if e.answer == "moderate" and 30 <= data.truth(e).findings["curve"] <= 38
    )


@pytest.mark.parametrize("cls", SETS)
def test_worked_traces_are_sound(cls):
    data = cls(cls.Config(n_patients=12, data_seed=3))
    for example in data.examples():
        kind = example.tags["question_type"]
        for name, trace in example.reasoning.items():
            if cls is Clinic and name != kind:
                continue  # kept because its answer is right, by another rule than the one that is asked for
            found = read(data, example, trace)
            assert (found.right, found.follows, found.agrees, found.right_reason) == (True, True, True, True), trace
            assert set(found.named) == set(found.needed) == {True}, trace


def test_another_strategy_of_the_clinic_is_right_by_a_rule_that_was_not_asked_for():
    data = Clinic(Clinic.Config(n_patients=60))
    lucky = [e for e in data.examples() if e.tags["question_type"] == "bayesian" and PATTERN in e.reasoning]
    found = [read(data, example, example.reasoning[PATTERN]) for example in lucky]
    assert len(found) > 3
    assert all(one.right and one.follows is False for one in found)


@pytest.mark.parametrize("cls", SETS)
def test_the_reader_sees_every_flaw_and_none_where_there_is_none(cls):
    data = cls(cls.Config(n_patients=5, data_seed=7))
    made = list(made_traces(data, seed=1))
    assert {one.flaw for one in made} == set(FLAWS)
    for name, seen in SEEN.items():
        for one in made:
            if one.flaw in seen.asked_of:
                assert seen.says(one.reading) == (one.flaw in seen.true_of), (name, one)


def test_reasons_by_hand():
    data, example = scoliosis()
    curve, apex = (data.truth(example).findings[name] for name in ("curve", "apex"))
    end = "so the answer is moderate."
    # 3 degrees off is a reading of the same angle; the argument repeats what is stated, whatever the truth
    near = read(data, example, f"curve {curve + 3} degrees, apex {apex}. {curve + 3} lies in 25 to 44. {end}")
    assert (near.named, near.needed, near.follows, near.right_reason) == ((True, True), (True,), True, True)
    # what was stated last is argued from, though it was stated before too
    said = ". ".join(f"curve {angle:02.0f} degrees, apex {apex}" for angle in (curve, curve - 25, curve))
    assert read(data, example, f"{said}. {curve} lies in 25 to 44. {end}").follows is True
    # 12 degrees off is another angle: the rule still gives moderate or severe of it
    far = read(data, example, f"curve {curve - 12} degrees, apex {apex}. {end}")
    assert far.named == (False, True)
    assert far.right
    assert not far.right_reason
    # the steps use another number than the one that was read
    other = read(data, example, f"curve {curve} degrees, apex {apex}. {curve - 7} lies in 25 to 44. {end}")
    assert other.follows is False
    assert other.right_reason
    # no case has a bend of 30 degrees and its apex in the middle
    assert read(data, example, f"curve {curve} degrees, apex midline. {end}").follows is False
    # the rule makes moderate of it, and severe is concluded
    assert read(data, example, f"curve {curve} degrees. so the answer is severe.", "severe").follows is False
    # either strength of the evidence will do, if the posterior is the one that Bayes' rule gives: 24 % to 85 or 56 %
    for ratio, posterior, holds in ((18, 85, True), (4, 56, True), (18, 56, False), (30, 90, False)):
        bayes = f"prior 24%. angle in 25 to 44 has likelihood ratio {ratio:02d}, odds go up. posterior {posterior}%"
        assert read(data, example, f"curve {curve} degrees. {bayes}. {end}").follows is holds, bayes
    # said in a model's own words: findings and conclusion are read, the step is not
    free = read(
        data, example, f"The curve is {curve} degrees. Bracing is the usual course then. The answer is moderate."
    )
    assert (free.named, free.needed, free.follows, free.agrees) == ((True,), (True,), None, True)
    assert (free.unread, free.right_reason, free.sound) == (True, True, False)
    # said only of what is rejected
    against = read(data, example, f"mild is unlikely because then the curve is {curve} degrees. {end}")
    assert (against.named, against.needed) == ((), (False,))


def test_a_ratio_that_is_not_that_of_the_widths_does_not_follow():
    data = ChestFilms(ChestFilms.Config(n_patients=20))
    example = next(e for e in data.examples() if e.answer == "enlarged")
    film = data.truth(example).findings
    for off, follows in ((0, True), (0.02, True), (0.05, False)):  # 0.03 is the error of a reading
        ratio = film["ratio"] + off
        said = (
            f"heart {film['heart']} of {film['chest']}, ratio {ratio:.2f}. ratio above 0.50. so the answer is enlarged."
        )
        assert read(data, example, said).follows is follows, said
    # the stated ratio decides, on whichever side of the cut-off the widths lie
    assert read(data, example, "heart 41 of 80, ratio 0.50. so the answer is enlarged.").follows is False
    assert read(data, example, "heart 41 of 80, ratio 0.50. so the answer is normal.").follows is True


@pytest.mark.parametrize(
    "completion",
    [
        *("", "<think>", "<think></think><answer>A</answer>", "A", "<think>rim 12</think>\x00<answer>C"),
        "<think>curve 999999 degrees, apex</think><answer>B</answer>",
        "<think>" + "curve 33 degrees. " * 2000 + "</think><answer>B</answer>",
    ],
)
@pytest.mark.parametrize("cls", SETS)
def test_nothing_that_a_model_writes_stops_the_reader(cls, completion):
    data = cls(cls.Config(n_patients=2))
    example = next(iter(data.examples()))
    found = read_by_rule(answered(example, completion), data.truth(example), data.bodies())
    assert found.follows is not True
    assert not found.right_reason


def run_folder(tmp_path, difficulty=0.3):
    """An examination of two models on a few spine films: one argues soundly, one answers well for wrong reasons."""
    data = SpineFilms(SpineFilms.Config(n_patients=10, difficulty=difficulty))
    lines = []
    for example in data.examples():
        other = "curve 03 degrees, apex midline" if data.truth(example).findings["curve"] > 9 else "curve 60 degrees"
        for model, thinking in (("base", f"{other}. so the answer is {example.answer}."), ("e/merged/x", None)):
            text = thinking or example.reasoning["analytical"]
            item = answered(example, f"<think>{text}</think><answer>{example.answer}</answer>")
            lines.append(replace(item, model=model, specialty="pediatrics", tags=dict(example.tags)).to_json())
    folder = tmp_path / "run"
    (folder / "evaluation").mkdir(parents=True)
    (folder / "evaluation/predictions.jsonl").write_text("\n".join(lines) + "\n")
    component = {"class_path": "datamodules.phantoms.spine.SpineFilms", "init_args": {"n_patients": 10}}
    (folder / "experiment.json").write_text(json.dumps({"seed": 0, "specialties": {"pediatrics": component}}))
    return folder


def test_the_command_tells_right_from_right_for_the_right_reason(tmp_path, capsys):
    folder = run_folder(tmp_path)
    assert main([str(folder), "--by", "question_type", "--out", str(tmp_path / "out")]) == 0
    table = capsys.readouterr().out
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith(("| base", "| e/merged"))]
    whole = {row[0].strip("| "): (row[4].split()[0], row[5].split()[0]) for row in rows if row[1] == "all questions"}
    assert whole == {"base": ("100.0", "0.0"), "e/merged/x": ("100.0", "100.0")}
    assert {row[1] for row in rows} == {"pediatrics: severity", "pediatrics: convexity", "all questions"}
    # 10 patients with two questions each are 10 patients, however the table is broken down
    assert {row[1]: row[2:4] for row in rows}["all questions"] == ["20", "10"]
    kept = [json.loads(line) for line in (tmp_path / "out/reasons.jsonl").read_text().splitlines()]
    assert len(kept) == 40
    assert {one["right_reason"] for one in kept if one["model"] == "base"} == {False}


def test_answers_to_other_data_and_folders_of_others_are_refused(tmp_path, capsys):
    folder = run_folder(tmp_path, difficulty=1.0)  # the folder says 0.3: other cases under the same ids
    assert main([str(folder)]) == 2
    assert "were the data changed since" in capsys.readouterr().err
    settings = json.loads((folder / "experiment.json").read_text())
    settings["specialties"]["pediatrics"]["class_path"] = "subprocess.Popen"
    (folder / "experiment.json").write_text(json.dumps(settings))
    assert main([str(folder)]) == 2
    assert "subprocess" in capsys.readouterr().err
    (folder / "experiment.json").unlink()
    assert main([str(folder)]) == 2
    assert "does not say which data sets were asked" in capsys.readouterr().err


def test_answers_without_options_are_left_to_a_judge(tmp_path, capsys):
    folder = run_folder(tmp_path)
    asked = {example.question_id: example for example in SpineFilms(SpineFilms.Config(n_patients=10)).examples()}
    items = [
        replace(item, options=(), answer_letter="", answer=asked[item.question_id].answer)
        for item in read_predictions(folder)
    ]
    (folder / "evaluation/predictions.jsonl").write_text("".join(item.to_json() + "\n" for item in items))
    settings = json.loads((folder / "experiment.json").read_text())
    settings["specialties"]["pediatrics"]["init_args"]["open_ended"] = True
    (folder / "experiment.json").write_text(json.dumps(settings))
    assert main([str(folder)]) == 2
    assert "pediatrics: answers without options are not read by rule; ask a judge" in capsys.readouterr().err


def test_what_nobody_says_is_left_out_of_the_table():
    item = Prediction("m", "s", "q", "p", "neutral", ("x", "y"), LETTERS[0], "")
    key = (item.model, item.key)
    row = reasons_table([item], {key: Reasoning(right=True, agrees=True)}).splitlines()[-1].split(" | ")
    # n, patients and accuracy; not the three shares of right reasons, nor findings true and found
    assert row[2:4] == ["1", "1"]
    assert row[4].startswith("100.0")
    assert row[5:12] == ["-"] * 7
    # of a judge that says nothing of the steps, or was not asked about them, nobody knows whether they follow
    known = Reasoning(right=True, named=(True,), needed=(True,), agrees=True)
    row = reasons_table([item], {key: known}).splitlines()[-1].split(" | ")
    assert row[5].startswith("100.0")
    assert [row[6], *row[10:12]] == ["-"] * 3
