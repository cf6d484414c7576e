# Reference: replies by hand, and the phantoms' own worked traces. Run: pytest tests/curation/test_curation_traces.py
import pytest

from curation.traces import GATES, trace_fault
from datamodules.batch import Example
from datamodules.phantoms.chest import ChestFilms
from datamodules.phantoms.skin import SkinLesions
from lightning_modules.rewards.guidelines import load_guidelines

GUIDELINES = load_guidelines(["differential", "intuitive", "analytical", "bayesian"])
ASKED = Example("p", (), "What does the film show?", ("pneumonia", "effusion", "normal lungs"), "effusion", "q")
REASON = (
    "The lower left field is white with a curved upper edge. Effusion fits, because fluid climbs the chest wall. "
    "Pneumonia is unlikely because it would show air in the bronchi."
)


def fault(thinking, answer="B", guideline="differential", text=None, **limits):
    text = text or f"<think>{thinking}</think><answer>{answer}</answer>"
    limits = {"min_adherence": 0.5, "max_characters": 2000} | limits
    return trace_fault(text, ASKED, GUIDELINES[guideline], **limits)


def test_a_good_trace_passes():
    assert fault(f"{REASON} So the answer is effusion.") == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{REASON} So the answer is effusion. <answer>B</answer>", "format:no_think"),
        (f"<think>{REASON} It is effusion.<answer>B</answer>", "format:answer_in_thinking"),
        (f"<think>{REASON}</think><answer>B</answer><answer>A</answer>", "format:several_answers"),
        (f"<think>{REASON}</think><answer>F</answer>", "format:letter_out_of_range"),
        (f"<think>{REASON}</think>So <answer>B</answer>", "format:text_outside_tags"),
        (f"<think>{REASON}</think><answer>../../etc/passwd</answer>", "format:not_an_option"),
    ],
)
def test_one_think_block_and_one_answer_block(text, found):
    assert fault("", text=text) == found


@pytest.mark.parametrize(
    ("thinking", "answer", "found"),
    [
        (f"{REASON} So the answer is pneumonia.", "A", "wrong_answer"),  # right form, wrong answer
        (f"{REASON} So the answer is pneumonia.", "B", "contradiction"),  # right answer, reasoned elsewhere
        (f"{REASON} So the answer is effusion or normal lungs.", "B", "contradiction"),  # would fit two answers
        ("The film is white below and has a curved upper edge on one side.", "B", "no_conclusion"),
        ("", "B", "empty_thinking"),
        ("effusion effusion effusion effusion", "B", "empty_thinking"),
        ("What does the film show? A) pneumonia B) effusion C) normal lungs", "B", "echo"),
        ("fluid here and " * 30 + "so effusion.", "B", "stuffing"),
        (f"{REASON} So the answer is option B, effusion.", "B", "names_letters"),
        ("A white curved edge, typical for effusion.", "B", "off_guideline"),
        ("x" * 3000, "B", "too_long"),
    ],
)
def test_lies_by_hand(thinking, answer, found):
    assert fault(thinking, answer) == found
    assert found in GATES


@pytest.mark.parametrize(
    ("end", "found"),
    [
        ("So the answer is effusion. On reflection, though, it is pneumonia.", "contradiction"),
        ("So the answer is effusion. No, effusion is wrong.", "contradiction"),
        ("So the answer is not effusion.", "contradiction"),
        ("Therefore A.", "contradiction"),
        ("Effusion fits, but I choose A", "contradiction"),
        ("So effusion, which is B.", "names_letters"),
        ("So the answer is effusion. The other options, pneumonia and normal lungs, do not fit.", ""),
        ("A curved edge: so the answer is effusion, not pneumonia.", ""),
    ],
)
def test_the_last_word_counts(end, found):
    assert fault(f"{REASON} {end}", min_adherence=0.0) == found


def test_the_least_adherence_is_the_one_that_is_set():
    assert fault("A white curved edge, typical for effusion.", min_adherence=0.0) == ""


@pytest.mark.parametrize("data", [ChestFilms, SkinLesions])
def test_every_worked_trace_of_the_phantoms_passes(data):
    examples = data(data.Config(n_patients=40)).splits["train"]
    limits = {"min_adherence": 0.5, "max_characters": 2000}
    found = [trace_fault(e.trace(g.name), e, g, **limits) for e in examples for g in GUIDELINES.values()]
    assert len(found) > 100
    assert set(found) == {""}


def test_a_trace_under_another_guideline_does_not_pass_as_differential():
    examples = ChestFilms(ChestFilms.Config(n_patients=40)).splits["train"]
    differential = GUIDELINES["differential"]
    limits = {"min_adherence": 0.5, "max_characters": 2000}
    found = {
        trace_fault(e.trace(name), e, differential, **limits) for e in examples for name in ("intuitive", "bayesian")
    }
    assert found == {"off_guideline"}
