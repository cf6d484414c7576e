"""The base's reasoning rows: their answers follow from what they state, and from nothing of a specialty."""

import re
from collections import Counter

import pytest

from datamodules.batch import LETTERS
from datamodules.phantoms.general import REASONING
from datamodules.phantoms.perception import KINDS, PerceptionMixture, clinical_texts, verdict_words

ROWS = 4000


@pytest.fixture(scope="module")
def rows():
    shares = dict.fromkeys(("letters", *REASONING), 1.0)
    return list(PerceptionMixture(PerceptionMixture.Config(n_rows=ROWS, shares=shares)).examples())


def of(rows, kind):
    return [example for example in rows if example.tags["question_type"] == kind]


def rule(question):
    stated, asked = re.fullmatch(r"(.*)\. which is (\d\d)\?", question).groups()
    first, *others = stated.split(", ")
    name, answer = re.fullmatch(r"(.*) below (\d\d)", first)[1], None
    answer = name
    for other in others:
        name, cut = re.fullmatch(r"(.*) from (\d\d)", other).groups()
        answer = name if int(asked) >= int(cut) else answer
    return answer


def comparison(question):
    stated, asked = re.fullmatch(r"(.*)\. which has (most|least)\?", question).groups()
    numbers = {thing[:-3]: int(thing[-2:]) for thing in stated.split(", ")}
    return (max if asked == "most" else min)(numbers, key=numbers.get)


def arithmetic(question):
    a, sign, b = re.fullmatch(r"how much is (\d\d) (plus|minus) (\d\d)\?", question).groups()
    return f"{int(a) + int(b) if sign == 'plus' else int(a) - int(b):02d}"


@pytest.mark.parametrize("solve", [rule, comparison, arithmetic], ids=lambda one: one.__name__)
def test_answers_follow_from_what_is_stated(rows, solve):
    found = of(rows, solve.__name__)
    assert len(found) > 0.1 * ROWS
    assert [solve(example.question) for example in found] == [example.answer for example in found]


def test_exclusion_leaves_one(rows):
    for example in of(rows, "exclusion"):
        stated = example.question.removesuffix(". which is left?").split(", ")
        assert {f"not {option}" for option in example.options} - set(stated) == {f"not {example.answer}"}


def test_letters_are_uniform_and_nothing_but_the_question_tells_them(rows):
    for kind in ("letters", *REASONING):
        for count in range(2, 6):
            letters = Counter(e.letter for e in of(rows, kind) if len(e.options) == count)
            total = letters.total()
            spread = (total / count * (1 - 1 / count)) ** 0.5
            for letter in LETTERS[:count]:
                assert abs(letters[letter] - total / count) <= 4 * spread, (kind, count, letters)


def test_reasoning_names_no_verdict_of_a_specialty(rows):
    verdicts = set(verdict_words(sorted(clinical_texts())))
    for kind in REASONING:
        for example in of(rows, kind):
            assert verdicts.isdisjoint(example.question.replace(",", " ").replace(".", " ").split()), example


def test_every_trace_ends_in_the_answer_and_names_are_told_apart(rows):
    for example in rows:
        assert example.reasoning["neutral"].endswith(f". so the answer is {example.answer}.")
        if example.tags["question_type"] != "arithmetic":
            assert not any(a != b and b.startswith(a) for a in example.options for b in example.options), example


def test_shares_are_kept_to():
    only = {"arithmetic": 1.0, "reading": 3.0, "letters": 0.0}
    kinds = Counter(
        e.tags["question_type"]
        for e in PerceptionMixture(PerceptionMixture.Config(n_rows=2000, shares=only)).examples()
    )
    assert set(kinds) == {"arithmetic", "reading"}
    assert abs(kinds["reading"] - 1500) < 4 * (2000 * 0.75 * 0.25) ** 0.5
    default = {e.tags["question_type"] for e in PerceptionMixture(PerceptionMixture.Config(n_rows=500)).examples()}
    assert default == set(KINDS)


@pytest.mark.parametrize("most", [1, 3])
def test_letters_have_at_most_so_many_words(most):
    config = PerceptionMixture.Config(n_rows=300, shares={"letters": 1.0}, most_words=most)
    lengths = {len(o.split()) for e in PerceptionMixture(config).examples() for o in e.options}
    assert lengths == set(range(1, most + 1))
