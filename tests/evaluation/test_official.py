# Reference: results of the released scorers on these strings, taken by running them (MedEvalKit 9b12e3b, MedXpertQA
# f21247d, Multi-Modality-Arena ddd9465; difflib of Python 3.11). Run with `pytest tests/evaluation/test_official.py`.
import math

import pytest

from datamodules.medxpertqa import MedXpertQA
from datamodules.path_vqa import PathVQA
from datamodules.slake import Slake
from datamodules.vqa_rad import VQARad
from evaluation.official import medevalkit, medxpertqa, omnimedvqa
from evaluation.predictions import Prediction
from evaluation.scorers import scorer_named
from tests.datamodules import released_shapes

LUNG = ("Tuberculosis", "Sarcoidosis", "Lung abscess", "Pneumothorax")
BLOOD = ("B", "A", "AB", "O")

CHOICES = [
    # (completion, options, gold, right, by which rule)
    ("B", LUNG, "B", True, "letter"),
    ("b.", LUNG, "B", True, "letter"),
    ("<answer>B</answer>", LUNG, "B", True, "letter"),
    ("\\boxed{C}", LUNG, "C", True, "letter"),
    ("The answer is: C", LUNG, "C", True, "nearest"),  # " c" is no letter, but most like "lung abscess"
    ("The answer is c", LUNG, "C", True, "letter"),
    ("B\n\nbecause the nodes are large", LUNG, "B", True, "letter"),
    ("The nodes are large.\n\nB. Sarcoidosis", LUNG, "B", True, "letter"),
    ("Sarcoidosis", LUNG, "B", True, "option_text"),
    ("", LUNG, "A", True, "nearest"),
    ("????", LUNG, "A", True, "nearest"),
    ("I cannot tell", LUNG, "A", True, "nearest"),
    ("(B)", LUNG, "B", False, "nearest"),
    ("**B**", LUNG, "B", False, "nearest"),
    ("The answer is B because of the nodes", LUNG, "B", False, "nearest"),
    ("The answer is not A but B", LUNG, "B", False, "nearest"),
    ("it is boxed", LUNG, "D", False, "nearest"),
    ("A", BLOOD, "B", True, "letter"),  # option A is called B, and B is right: a wrong answer counts
]


@pytest.mark.parametrize(("text", "options", "gold", "right", "reason"), CHOICES)
def test_medevalkit_choices(text, options, gold, right, reason):
    assert medevalkit.multiple_choice(text, options, gold) == medevalkit.Choice(right, reason)


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("Yes", "yes", True),
        ("no.", "no", True),
        ("Yes, there is an abnormality", "yes", False),  # "no" in "abnormality"
        ("normal", "no", True),  # "no" in "normal"
        ("Unknown", "no", True),  # "no" in "unknown"
        ("\\boxed{Yes}", "Yes", True),
        ("<answer>no</answer>", "no", True),
        ("", "no", False),
    ],
)
def test_medevalkit_yes_and_no(text, gold, right):
    assert medevalkit.yes_no(text, gold) is right


def test_medevalkit_slake_needs_the_exact_text_where_the_answer_is_capitalised():
    assert medevalkit.slake_closed("Yes, it is", "yes")
    assert not medevalkit.slake_closed("Yes, it is", "Yes")
    assert medevalkit.slake_closed("Yes.", "Yes")
    assert not medevalkit.slake_closed(" Yes", "Yes")


def made_folder(cls, root):
    if cls is Slake:
        return released_shapes.slake(root)
    return released_shapes.short_answers(root, ("train", "validation", "test") if cls is PathVQA else ("train", "test"))


def answered(example, completion):
    """A prediction as an examination keeps it."""
    letter, answer = (example.letter, "") if example.options else ("", example.answer)
    asked = (example.question_id, example.patient_id, "neutral", example.options)
    return Prediction("base", "vqa", *asked, letter, completion, dict(example.tags), answer=answer)


THROUGH_DATA = [
    # (right answer, completion, by SLAKE's rule, by the rule of VQA-RAD and PathVQA)
    ("yes", "Yes", True, True),
    ("yes", "yes.", True, True),
    ("yes", "Yes, there is an abnormality", False, False),  # exact text; "no" in "abnormality"
    ("yes", "Yes, it is", False, True),
    ("yes", "", False, False),
    ("yes", "A", False, False),  # no options were shown: a letter says nothing
    ("no", "No", True, True),
    ("no", "B", False, False),
    ("no", "Unknown", False, True),
    ("no", "normal", False, True),
]


@pytest.mark.parametrize("cls", [Slake, VQARad, PathVQA])
def test_medevalkit_scores_yes_and_no_of_the_released_sets_by_their_closed_rules(cls, tmp_path):
    module = cls(cls.Config(**made_folder(cls, tmp_path), questions="all"), specialty="vqa")
    examples = {example.answer: example for example in module.splits["test"]}
    assert {"yes", "no"} < examples.keys()
    assert examples["yes"].options == ("yes", "no")
    scorer = scorer_named("official:medevalkit")
    for gold, text, slake, others in THROUGH_DATA:
        found = scorer(answered(examples[gold], text))
        assert (found.right, found.reason) == (slake if cls is Slake else others, "closed"), (gold, text)
    free = "Left" if cls is Slake else "a wide heart"
    found = scorer(answered(examples[free], free.lower()))
    assert (found.right, found.reason) == (True, "closed" if cls is Slake else "open")


def test_medevalkit_names_of_a_free_answer_are_swapped():
    # said {right, lower, lobe}, wanted {right, lobe}: precision 2/3, recall 1, f1 4/5, each under another name
    found = medevalkit.open_answer("right lower lobe", "Right lobe")
    assert found == pytest.approx((False, 0.8, 2 / 3, 1.0))
    assert medevalkit.open_answer("Right lobe", "right lobe").exact
    assert not medevalkit.open_answer("right lobe.", "right lobe").exact
    assert medevalkit.open_answer("", "right lobe") == (False, 0.0, 0.0, 0.0)


def test_medevalkit_totals_with_a_judge():
    # two open (rule: 1 right, judge: 1 right, the other one), two closed (rule: both, judge: one)
    rows = ([True, True, False, False], [True, False, True, True], [False, True, True, False])
    assert medevalkit.judged_totals("path_vqa", *rows) == (1, 0, 1)
    assert medevalkit.judged_totals("slake", *rows) == (4, 3, 1)
    assert medevalkit.judged_totals("vqa_rad", *rows) == (4, 2, 1)


@pytest.mark.parametrize(
    ("text", "n", "letter"),
    [
        ("C", 5, "C"),
        (" (C).", 5, "C"),
        ("Therefore, among A through E, the answer is C", 5, "C"),
        ("Therefore, among A through J, the answer is C", 10, "C"),
        ("I understand. D", 10, "D"),
        ("among A through E: D", 5, "D"),
        ("so the answer is B because A is unlikely", 5, "B"),
        ("The answer is not A but B", 5, "A"),
        ("A CT scan shows a mass, so the answer: C", 5, "A"),
        ("A 45-year-old man … Therefore C", 5, "A"),
        ("I think the answer is: C", 10, "I"),
        ("I think the answer is: C", 5, "C"),
        ("b", 5, None),
        ("F", 5, None),
        ("", 5, None),
        ("one answer is A, the other answer is B", 5, "A"),
        ("Therefore, among A through D, the answer is C", 5, "C"),
    ],
)
def test_medxpertqa(text, n, letter):
    assert medxpertqa.letter(text, n) == letter


def test_medxpertqa_turns():
    assert medxpertqa.first_turn("Which?\nAnswer Choices: (A) x (B) y").startswith("Q: Which?")
    assert medxpertqa.first_turn("Which?").endswith("\nA: Let's think step by step.")
    assert medxpertqa.second_turn(5) == "Therefore, among A through E, the answer is"
    assert medxpertqa.second_turn(10) == "Therefore, among A through J, the answer is"
    assert medxpertqa.letter(medxpertqa.second_turn(5) + " (E).", 5) == "E"
    for n in (1, 11):
        with pytest.raises(ValueError, match="2 to 10"):
            medxpertqa.letter("A", n)
        with pytest.raises(ValueError, match="2 to 10"):
            medxpertqa.released_question("Which?", ["x"] * n)


@pytest.mark.parametrize("shape", ["hf", "github"])
def test_a_medxpertqa_question_is_put_together_as_it_was_released(shape, tmp_path):
    module = MedXpertQA(MedXpertQA.Config(**released_shapes.medxpertqa(tmp_path, shape)), specialty="medxpertqa")
    questions = {example.question_id: example for example in module.splits["test"]}
    for i in range(released_shapes.TRIALS):
        row = released_shapes.medxpertqa_row(i, shape)
        example = questions[row["id"]]
        assert "Answer Choices" not in example.question
        assert medxpertqa.released_question(example.question, example.options) == row["question"]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("Sarcoidosis", 1),
        ("sarcoidosis", 1),
        ("Not Sarcoidosis", 1),
        ("The picture shows a pneumothorax on the left", 3),
        ("????", None),
        ("", None),
        ("B", None),  # the letter is in no option
        ("T", 0),
    ],
)
def test_omnimedvqa_question_answering_score(text, index):
    assert omnimedvqa.most_similar(text, LUNG) == index


def test_omnimedvqa_prefix_score():
    assert omnimedvqa.least_loss([2.0, 1.5, 1.5, 3.0]) == 1
    assert omnimedvqa.least_loss([2.0, 0.0]) == 0  # 1 / 0 makes the release's softmax NaN
    for bad in ([], [-1.0, 2.0]):
        with pytest.raises(ValueError, match="one loss per option"):
            omnimedvqa.least_loss(bad)
    assert omnimedvqa.prefix("What is it?") == "Question: What is it? The answer is"
    assert omnimedvqa.continuation("a wide heart") == " a wide heart."


def test_omnimedvqa_prefix_score_is_the_softmax_of_reciprocals():
    losses = [0.9, 0.31, 2.5, 0.32]
    powers = [math.exp(1 / loss) for loss in losses]
    assert omnimedvqa.least_loss(losses) == max(range(4), key=lambda i: powers[i] / sum(powers))


@pytest.mark.parametrize("piece", ["<answer>", "\\boxed{", "answer is ", "A through E", " answer is ", "}"])
def test_a_megabyte_is_scored(piece):
    text = piece * (1_000_000 // len(piece))
    assert medevalkit.multiple_choice(text, LUNG, "A").reason == "nearest"
    assert not medevalkit.open_answer(text, "lung").exact
    assert medxpertqa.letter(text, 5) is None
