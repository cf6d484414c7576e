# Reference: the order that the release describes, written out below without a regular expression.
# Run: pytest tests/judging/test_judging_verdicts.py
import json
import random

import pytest

from judging.cases import DIMENSIONS
from judging.messages import MODES, instruction, message
from judging.official import organ_accuracy
from judging.verdicts import RULES, graded, ranked, released, strict
from tests.judging.replies import reply

ALL_A = dict.fromkeys(DIMENSIONS, "A")
FOLDED = str.maketrans({"ſ": "s", "ı": "i", "İ": "i", "K": "k"})  # what re.IGNORECASE takes for these letters


def json_step(text):
    if "{" not in text or "}" not in text:
        return None
    try:
        held = json.loads(text[text.index("{") : text.rindex("}") + 1])
        verdicts = {name: str(held[name]).strip().upper() for name in DIMENSIONS}
    except Exception:
        return None
    return verdicts if all(side in ("A", "B") for side in verdicts.values()) else None


def side_behind(text, name):
    """The letter behind the first mention of a dimension that a colon and A or B follow."""
    low, start = text.translate(FOLDED).lower(), -1
    while (start := low.find(name, start + 1)) >= 0:
        at = start + len(name)
        at += text[at : at + 1] == '"'
        while text[at : at + 1].isspace():
            at += 1
        if text[at : at + 1] != ":":
            continue
        at += 1
        while text[at : at + 1].isspace():
            at += 1
        at += text[at : at + 1] == '"'
        if text[at : at + 1] in tuple("ABab"):
            return text[at].upper()
    return None


def slow(said):
    text = said.strip().strip('"')
    if found := json_step(text):
        return found
    sides = {name: side_behind(text, name) for name in DIMENSIONS}
    if None not in sides.values():
        return sides
    for at in range(len(text) - 4):
        if text[at : at + 2] == "[[" and text[at + 2] in "ABab" and text[at + 3 : at + 5] == "]]":
            return dict.fromkeys(DIMENSIONS, text[at + 2].upper())
    word = [character.isalnum() or character == "_" for character in text]
    alone = [
        at
        for at, character in enumerate(text)
        if character in "ABab" and not (at and word[at - 1]) and not (at + 1 < len(text) and word[at + 1])
    ]
    if len(alone) == 1:
        return dict.fromkeys(DIMENSIONS, text[alone[0]].upper())
    return dict.fromkeys(DIMENSIONS, text.upper()) if text.upper() in ("A", "B") else {}


def test_generated_replies_are_read_in_the_release_s_order():
    used = set()
    for number in range(1000):
        said = reply(random.Random(f"verdicts/{number}"))
        found = released(said)
        assert found.verdicts == slow(said), repr(said)
        used.add(found.rule)
    assert used == set(RULES)


@pytest.mark.parametrize(
    ("said", "rule", "side"),
    [
        ("It was a close call.", "lone letter", "A"),  # the article counts
        ("A is a good answer.", "dropped", None),  # twice a stand-alone letter
        ("vitamin B12 matters, B-mode helps", "lone letter", "B"),
        ("[[b]] although A and B differ", "brackets", "B"),
        (' "b" ', "lone letter", "B"),
        ("", "dropped", None),
    ],
)
def test_one_letter_fills_all_six(said, rule, side):
    found = released(said)
    assert (found.rule, set(found.verdicts.values())) == (rule, {side} - {None})
    assert not strict(said).verdicts


def test_the_echoed_form_and_words_are_read_by_their_first_letter_and_strictly_not_at_all():
    echoed = json.dumps(dict.fromkeys(DIMENSIONS, "A|B"))
    assert (released(echoed).rule, released(echoed).verdicts) == ("regex", ALL_A)
    both = "\n".join(f"{name}: both" for name in DIMENSIONS)
    assert set(released(both).verdicts.values()) == {"B"}
    assert not strict(echoed).verdicts
    assert not strict(both).verdicts


def test_the_strict_reading_takes_what_was_asked_for_and_nothing_else():
    sound = json.dumps({**ALL_A, "reason": "Short."})
    for said in (
        sound,
        f" {sound}\n",
        f"```json\n{sound}\n```",
        f"<think>A or B? {{}}</think>{sound}",
        json.dumps(ALL_A),
    ):
        assert strict(said).verdicts == ALL_A, said
    lower, more = json.dumps({**ALL_A, "overall": "a"}), json.dumps({**ALL_A, "extra": 1})
    fewer = json.dumps({name: "A" for name in DIMENSIONS[1:]})
    twice = sound[:-1] + ', "overall": "B"}'
    for said in (lower, more, fewer, twice, f"{sound} Done.", f"Sure: {sound}", "A", f"<think>{sound}"):
        assert not strict(said).verdicts, said


def test_what_is_read_strictly_is_read_alike_by_the_release():
    for number in range(1000):
        said = reply(random.Random(f"strict/{number}"))
        if "<think>" not in said and (found := strict(said).verdicts):
            assert released(said).verdicts == found, repr(said)


def test_accuracy_by_hand():
    # q1 right on all, q2 dropped, q3 read as A on all and right on one; the unknown id counts nowhere
    truths = {"q1": ALL_A, "q2": ALL_A, "q3": {**dict.fromkeys(DIMENSIONS, "B"), "overall": "A"}}
    replies = [("q1", "[[A]]"), ("q2", "no idea"), ("q3", "[[A]]"), ("q9", "[[A]]")]
    assert organ_accuracy(truths, replies) == {**dict.fromkeys(DIMENSIONS, 0.3333), "overall": 0.6667}
    # of two replies to one case the last that can be read counts
    again = [*replies, ("q2", "[[B]]"), ("q2", "[[A]]"), ("q2", "no idea")]
    assert organ_accuracy(truths, again)["overall"] == 1.0
    assert organ_accuracy({}, replies)["overall"] == 0.0


def grades(**given):
    return json.dumps({**dict.fromkeys(DIMENSIONS, 5), **given})


def test_grades_and_orders():
    found = graded((grades(accuracy=7, overall=2), grades(relevance=6)))
    assert found.verdicts == {"accuracy": "A", "relevance": "B", "overall": "B"}
    assert found.ties == ("comprehensiveness", "creativity", "responsiveness")
    for wrong in (True, "7", 0, 11, None, float("nan")):
        assert "accuracy" not in graded((grades(accuracy=wrong), grades())).verdicts
    assert not graded(("no grades", grades())).verdicts
    orders = json.dumps({**dict.fromkeys(DIMENSIONS, "BA"), "accuracy": "A > B", "overall": "AA"})
    assert ranked(orders).verdicts == {**dict.fromkeys(DIMENSIONS[:-1], "B"), "accuracy": "A"}


@pytest.mark.parametrize("mode", MODES)
def test_a_message_shows_question_and_answers_verbatim_in_order(mode):
    answers = {"score": [" one\n"], "pair": [" one\n", "two"], "batch": [" one\n", "two", "three"]}[mode]
    said = message(instruction(mode), "What is {this}?", answers, mode)
    names = ["Assistant"] if mode == "score" else [f"Assistant {letter}" for letter in "ABC"[: len(answers)]]
    marks = ["[The Start of User Instruction]\nWhat is {this}?\n[The End of User Instruction]"]
    marks += [
        f"[The Start of {name}'s Answer]\n{text}\n[The End of {name}'s Answer]"
        for name, text in zip(names, answers, strict=True)
    ]
    head, found, rest = said.partition("\nHere is the input:\n")
    assert found
    assert rest.rstrip("\n") == "\n".join(marks)
    assert all(f'"{name}"' in head for name in DIMENSIONS)
    with pytest.raises(ValueError, match="takes"):
        message("x", "q", [], mode)
    if mode == "pair":
        with pytest.raises(ValueError, match="takes 2 answers, got 3"):
            message("x", "q", ["a", "b", "c"], mode)
