# Reference: transcripts whose answer is known by construction (tests/campaigns/transcripts.py).
# Run: pytest tests/evaluation/test_transcripts.py; more of them: python -m tests.campaigns.transcripts --seeds 100000.
import pytest

from evaluation.answers import LETTERS, extract
from tests.campaigns.transcripts import KINDS, SETS, main, measure, transcript

SEEDS = range(1500)


@pytest.mark.parametrize("name", SETS)
def test_few_transcripts_are_misread(name):
    found = measure(SEEDS, name)
    shown = [(item.kind, letter, item.truth, item.text) for item, letter in found.examples[:5]]
    assert found.wrong <= 0.002 * found.n, shown
    assert found.unread <= 0.03 * found.n, shown


def test_every_kind_is_made_and_every_number_of_options():
    made = [transcript(seed) for seed in SEEDS]
    assert {item.kind for item in made} == set(KINDS)
    assert {len(item.options) for item in made} == set(range(2, 11))
    assert {item.truth for item in made} >= {None, *LETTERS[:9]}
    assert sum("。" in item.text for item in made) > 200
    assert transcript(7) == transcript(7) != transcript(8)


LUNG = ("Tuberculosis", "Sarcoidosis", "Lung abscess", "Pneumothorax")
ITEMS = [
    "**{}. {}**: this usually has another course",
    "{}) {}\n   - this usually has another course",
    "- **{}**: {} usually has another course",
    "### Option {}: {}\n\nThis usually has another course",
    "| {} | {} | usually has another course |",
]


@pytest.mark.parametrize("item", ITEMS)
def test_an_enumeration_cut_off_at_any_place_is_unread(item):
    text = "Let's analyze each option:\n\n" + "\n\n".join(map(item.format, "ABCD", LUNG))
    assert {extract(text[:end], LUNG, "lenient").letter for end in range(len(text))} == {None}


@pytest.mark.parametrize("item", ITEMS)
def test_the_verdict_behind_an_enumeration_is_read(item):
    text = "\n\n".join(map(item.format, "ABCD", LUNG))
    for letter in "ABCD":
        assert extract(f"{text}\n\nThe correct answer is {letter}.", LUNG, "lenient").letter == letter
        assert extract(f"{text}\n\n**{letter}**", LUNG, "lenient").letter in (letter, None)


OPEN_AND_CLOSE = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("## Thinking\n", "\n## Final Response\n"),
    ("<unused94>thought\n", "<unused95>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
]


@pytest.mark.parametrize(("opening", "closing"), OPEN_AND_CLOSE)
def test_what_is_thought_is_no_answer(opening, closing):
    assert extract(f"{opening}The answer is A.{closing}The answer is B.", LUNG, "lenient").letter == "B"
    assert extract(f"{opening}The answer is A.{closing}", LUNG, "lenient").letter is None
    assert extract(f"{opening}The answer is A.", LUNG, "lenient").reason == "unclosed_think"


def test_an_explanation_behind_the_answer_is_no_thinking():
    text = "<answer>B</answer>\n<analysis>A is less likely.</analysis>"
    assert extract(text, LUNG, "lenient").letter == "B"


def test_the_campaign_prints_rates_and_fails_above_them(capsys, monkeypatch):
    assert main(["--seeds", "200"]) == 0
    assert "enumeration" not in capsys.readouterr().out
    monkeypatch.setattr("evaluation.answers.extract", lambda text, options, mode: extract("A", options, mode))
    assert main(["--seeds", "200", "--show", "1"]) == 1
    assert "read A" in capsys.readouterr().out
