# Reference: counts by hand; run with `pytest tests/evaluation/test_rescore.py`.
from dataclasses import replace

import pytest

from evaluation.matrix_table import matrix_csv
from evaluation.predictions import Prediction, read_predictions
from evaluation.rescore import main
from evaluation.scorers import SCORERS, main_outcome, main_scorer, scorer_named
from evaluation.scoring import by_tag, matrix, score
from evaluation.summary import main as summarise

OPTIONS = ("enlarged", "normal")


def prediction(i, text, gold="A", *, model="base", specialty="chest", **changes):
    if len(text) == 1:
        text = f"<think>the heart is wide</think><answer>{text}</answer>"
    made = Prediction(model, specialty, f"q{i}", f"p{i}", "neutral", OPTIONS, gold, text, {"modality": "CT"})
    return replace(made, **changes)


def experiment(folder, predictions):
    path = folder / "evaluation"
    path.mkdir(parents=True)
    lines = "".join(item.to_json() + "\n" for item in predictions)
    (path / "predictions.jsonl").write_text(lines, "utf-8")
    (path / "matrix.csv").write_text(matrix_csv(matrix(predictions)), "utf-8")
    return folder


@pytest.fixture
def run(tmp_path):
    """Two models on two specialties; the first one's chest: right, wrong, right only if read leniently, a refusal."""
    base = [prediction(0, "A"), prediction(1, "B", tags={"modality": "MR"}), prediction(2, "The answer is A.")]
    base += [prediction(3, "I cannot tell, line\u2028break"), prediction(0, "B", "B", specialty="skin")]
    expert = [replace(item, model="expert", completion=item.completion.replace(">B<", ">A<")) for item in base]
    return experiment(tmp_path / "run", [*base, *expert])


def test_the_numbers_follow_from_the_file(run, capsys):
    assert main([str(run), "--by", "modality", "--scorer", "official:medxpertqa", "--check"]) == 0
    printed = capsys.readouterr().out
    # Wilson's interval by t with 3 degrees of freedom: (1/4 + 10.128/8 ± 3.1824 √(3/64 + 10.128/64)) / (1 + 10.128/4)
    # chest of base: 1 of 4 strictly, 2 of 4 leniently, 2 read strictly, 3 leniently, 1 refusal
    assert "| base | chest | 4 | 4 | 25.0 [2.1, 83.7] | 50.0 | 50.0 | 75.0 | 25.0 | 0.0 |" in printed
    assert "| base | micro | 5 | 5 | 40.0 [" in printed
    assert "| base | macro | 5 |  | 62.5 | 75.0 | 75.0 | 87.5 | 12.5 | 0.0 |" in printed
    assert "| base | MR | 1 | 1 | 0.0 [" in printed
    assert "the 22 numbers follow from the predictions" in printed


@pytest.mark.parametrize("command", [main, summarise])
def test_names_in_a_file_do_not_act_on_the_terminal(tmp_path, capsys, command):
    name = "expert\x1b[2J"
    folder = experiment(tmp_path / "run", [replace(prediction(i, "A"), model=name) for i in range(3)])
    assert command([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "expert\\x1b[2J" in printed
    assert all(line.isprintable() for line in printed.split("\n"))


def test_another_number_is_found(run, capsys):
    path = run / "evaluation" / "matrix.csv"
    path.write_text(path.read_text().replace("0.250000", "0.350000", 1))
    assert main([str(run), "--check"]) == 1
    assert "matrix.csv:2: holds" in capsys.readouterr().err
    path.unlink()
    assert main([str(run), "--check"]) == 1
    assert "No such file" in capsys.readouterr().err


def test_every_place_of_the_file_is_accepted(run):
    file = run / "evaluation" / "predictions.jsonl"
    assert read_predictions(run) == read_predictions(run / "evaluation") == read_predictions(file)
    assert len(read_predictions(run)) == 10


def test_several_completions_are_shown_together(tmp_path, capsys):
    rows = [
        replace(prediction(i, letter), guideline=name)
        for i, said in enumerate(("AAB", "BBA"))
        for letter, name in zip(said, ("intuitive", "analytical", "bayesian"), strict=True)
    ]
    assert main([str(experiment(tmp_path / "run", rows))]) == 0
    printed = capsys.readouterr().out
    # votes A and B: 1 of 2; pass@1 1/2, pass@2 (1 + 2/3) / 2; maj@2 draws share ties: (2/3 + 1/3) / 2
    assert (
        "| base | chest | 2 | intuitive 50.0, analytical 50.0, bayesian 50.0 | 50.0 | 1: 50.0, 2: 83.3, 3: 100.0 | "
        "1: 50.0, 2: 50.0, 3: 50.0 |" in printed
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "predictions.jsonl:11: not a JSON object"),
        ("[" * 100_000, "predictions.jsonl:11: not a JSON object"),
        ('{"model": 1}', "predictions.jsonl:11: got ['model'], expected the keys"),
    ],
)
def test_a_bad_line_is_named(run, capsys, line, message):
    with open(run / "evaluation" / "predictions.jsonl", "a", encoding="utf-8") as file:
        file.write(line + "\n")
    assert main([str(run)]) == 2
    assert message in capsys.readouterr().err


def test_bad_requests_are_named(run, tmp_path, capsys):
    assert main([str(run), "--by", "stage"]) == 2
    assert "--by stage: no prediction has such a tag; there are ['modality']" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "has" in capsys.readouterr().err
    (run / "evaluation" / "predictions.jsonl").write_bytes(b"\xff\xfe")
    assert main([str(run)]) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_breakdown_by_hand():
    rows = [
        prediction(0, "A"),
        prediction(1, "B"),
        prediction(2, "A", tags={"modality": "MR"}),
        prediction(3, "A", tags={}),
    ]
    assert {value: (score(held).n, score(held).correct_strict) for value, held in by_tag(rows, "modality").items()} == {
        "(none)": (1, 1),
        "CT": (2, 1),
        "MR": (1, 1),
    }


def free(text, gold, **tags):
    return prediction(0, text, options=(), answer_letter="", answer=gold, tags=tags)


@pytest.mark.parametrize(
    ("name", "item", "right", "answered"),
    [
        ("strict", prediction(0, "A"), True, "A"),
        ("strict", prediction(0, "The answer is A."), False, None),
        ("lenient", prediction(0, "The answer is A."), True, "A"),
        ("strict", free("<think>x</think><answer>the left lung.</answer>", "Left lung"), True, "the left lung."),
        ("strict", free("<think>x</think><answer>Yes</answer>", "Yes"), True, "yes"),
        ("lenient", free("Yes, there is.", "yes"), True, "yes"),
        ("lenient", free("There is no fracture.", "no"), False, None),
        ("official:medxpertqa", prediction(0, "A 45-year-old man. Therefore B", "B"), False, "A"),
        ("official:omnimedvqa", prediction(0, "not enlarged"), True, "A"),
        ("official:omnimedvqa_prefix", prediction(0, "B", option_losses=(0.5, 1.5)), True, "A"),
        ("official:medevalkit", prediction(0, ""), True, "A"),
        ("official:medevalkit", free("Unknown", "no"), True, None),
        ("official:medevalkit", free("Yes, it is", "Yes", dataset="SLAKE", answer_type="CLOSED"), False, None),
        ("official:medevalkit", free("left lung", "left lung"), True, None),
    ],
)
def test_every_scorer_by_its_name(name, item, right, answered):
    found = scorer_named(name)(item)
    assert (found.right, found.answered) == (right, answered)


TWO_TURN, LIKELIHOOD = ({"protocol": name} for name in ("two_turn", "likelihood"))


def test_a_released_protocol_counts_by_its_own_scorer():
    # (what is stored, counted by, right, lenient right); option A is right
    stored = [
        (prediction(0, "A"), "strict", True, True),
        (prediction(0, "The answer is A."), "strict", False, True),
        (prediction(0, "(A)", protocol=TWO_TURN, turns=("B?",)), "official:medxpertqa", True, True),
        (prediction(0, "enlarged", protocol=TWO_TURN, turns=("B?",)), "official:medxpertqa", False, True),
        (prediction(0, "", protocol=LIKELIHOOD, option_losses=(0.5, 1.5)), "official:omnimedvqa_prefix", True, True),
        (prediction(0, "", protocol=LIKELIHOOD, option_losses=(1.5, 0.5)), "official:omnimedvqa_prefix", False, False),
    ]
    for item, name, right, lenient in stored:
        assert main_scorer(item) == name
        assert (main_outcome(item).right, scorer_named("lenient")(item).right) == (right, lenient)
        one = score([item])
        assert (one.accuracy, one.accuracy_lenient) == (float(right), float(lenient))
    with pytest.raises(ValueError, match="has no option_losses"):
        main_outcome(prediction(0, "", protocol=LIKELIHOOD))


def test_a_model_without_a_finite_loss_is_wrong_and_named_so():
    silent = prediction(0, "", protocol=LIKELIHOOD, option_tokens=(2, 3, 1)[: len(OPTIONS)])
    assert (main_outcome(silent).right, main_outcome(silent).reason) == (False, "not_finite")
    assert score([silent]).accuracy_lenient == 0


def test_seeds_are_of_one_protocol(tmp_path, capsys):
    one = experiment(tmp_path / "one", [prediction(0, "A")])
    two = experiment(tmp_path / "two", [prediction(0, "A", protocol=TWO_TURN, turns=("so",))])
    assert summarise([str(one), str(two)]) == 0
    printed = capsys.readouterr().out
    assert "±" not in printed
    assert f"{two} is no seed of {one}: " in printed
    assert "protocols differ: protocol 'not stated' and 'two_turn'" in printed
    summarise([str(two)])
    assert "by the scorer official:medxpertqa" in capsys.readouterr().out


def test_tables_name_what_counts(tmp_path, capsys):
    losses = [(0.5, 1.5), (0.2, 0.1), (0.3, 0.4)]
    rows = [prediction(i, "", protocol=LIKELIHOOD, option_losses=given) for i, given in enumerate(losses)]
    assert main([str(experiment(tmp_path / "run", rows)), "--check"]) == 0
    printed = capsys.readouterr().out
    assert "| model | specialty | n | patients | official:omnimedvqa_prefix, % | lenient, % | read, % |" in printed
    assert "| base | chest | 3 | 3 | 66.7 [6.3, 98.3] | 66.7 | 100.0 | 100.0 | 0.0 | 0.0 |" in printed


def test_scorers_refuse_what_they_cannot_score():
    with pytest.raises(ValueError, match="choose one of strict, lenient"):
        scorer_named("judge")
    for name in SCORERS:
        if name.startswith("official:") and name != "official:medevalkit":
            with pytest.raises(ValueError, match=f"{name}: question 'q0' has no options"):
                SCORERS[name](free("x", "y"))


def test_free_answers_are_scored_too():
    rows = [free("<think>x</think><answer>left</answer>", "Left"), replace(free("right", "left"), question_id="q1")]
    found = score(rows)
    assert (found.n, found.correct_strict, found.parse_rate, found.parse_rate_lenient) == (2, 1, 0.5, 1.0)
    assert found.letters == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": (), "answer_letter": ""}, "has no options, so answer_letter must be empty and answer"),
        ({"options": (), "answer": "left"}, "has no options"),
        ({"option_losses": (1.0,)}, "1 option_losses for 2 options"),
        ({"option_losses": (1.0, float("nan"))}, "must be finite"),
        ({"option_tokens": (1, 2, 3)}, "3 option_tokens for 2 options"),
        ({"option_losses": (1.0, 2.0), "option_tokens": (0, 2)}, "option_tokens at least 1"),
        ({"sample": -1}, "sample at least 0"),
    ],
)
def test_impossible_predictions_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        prediction(0, "A", **changes)


def test_rare_attributes_come_back_and_cost_nothing():
    rich = prediction(
        0,
        "A",
        sample=3,
        protocol={"image": "blank"},
        turns=("I think …",),
        option_losses=(0.5, 1.25),
        option_tokens=(3, 1),
        answer="enlarged",
    )
    assert Prediction.from_json(rich.to_json()) == rich
    rare = {"sample", "protocol", "turns", "option_losses", "option_tokens"}
    assert not rare & set(prediction(0, "A").to_json().split('"'))


def test_what_cannot_be_summarised_is_one_line(tmp_path, capsys):
    assert summarise([str(tmp_path / "nope")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("summary: ")
    assert printed.err.endswith(f"no such file; has {tmp_path / 'nope'} been evaluated?\n")
    assert printed.err.count("\n") == 1
    assert not printed.out
