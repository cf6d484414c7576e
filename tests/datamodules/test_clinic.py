# Reference: the clinic's four rules re-stated here over what the trace itself says was seen, and counts by hand.
# Run: pytest tests/datamodules/test_clinic.py
from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from functools import cache

import pytest

from datamodules.base import SPLITS
from datamodules.phantoms.base import GUIDELINES, phantom_classes
from datamodules.phantoms.clinic import ASKS, PATTERN, TURNED, Clinic, drawn, pair
from datamodules.phantoms.clinic_rules import READINGS, strategy_trace
from lightning_modules.families.tiny import TinyQwen2_5_VL, trained_tokenizer
from lightning_modules.rewards.adherence import adherence, reference_of
from lightning_modules.rewards.gates import gates
from lightning_modules.rewards.guidelines import load_guidelines

STEM = re.compile(r"volume load in (\d\d)%, ([a-z ]+) in (\d\d)%\. No ([a-z ]+)\. Blood (0\.\d)\. ([A-Z][a-z ]+\?)")
FILM = re.compile(r"heart (\d\d) of (\d\d), ratio 0\.\d\d\. viewer left (\w+), viewer right (\w+)\.")

CHANGED = {"bayesian": [0, 2], "differential": [3], "analytical": [4]}
"""Type -> the parts of the stem that turn its answer."""


@cache
def clinic(**options):
    return Clinic(Clinic.Config(**({"n_patients": 1200} | options)))


@cache
def examples_of(**options):
    return tuple(clinic(**options).examples())


def restated(example, strategy):
    """What a strategy answers, by its rule in other words, from the stem and the film as a trace reads it."""
    prior, rest, others, absent, blood, _ = STEM.fullmatch(example.question).groups()
    heart, chest, left, right = FILM.match(next(iter(example.reasoning.values()))).groups()
    wide, sides = int(heart) / int(chest) > 0.5, [left, right].count("blunt")
    if strategy == "bayesian":
        return "volume load" if int(prior) * (3.3 if wide else 0.33) > int(others) else rest
    if strategy == "differential":
        left = {"displaced wall": "melanoma", "mole": "injury", "bulge": "volume load", "pressure rise": "torn artery"}
        return left[absent]
    if strategy == "analytical":
        if float(blood) > 0.5:
            return "torn artery" if wide else "injury"
        return "volume load" if wide else "melanoma"
    if sides == 2:
        return "volume load" if wide else "melanoma"
    return "injury" if left == "blunt" else "torn artery"  # the viewer's left is the patient's right


def right_by(strategy, examples):
    return sum(restated(example, strategy) == example.answer for example in examples) / len(examples)


def test_the_type_decides_which_reasoning_gives_the_answer():
    for example in examples_of():
        assert example.answer == restated(example, example.tags["question_type"])
        assert example.question.endswith(ASKS[example.tags["question_type"]])
    assert set(Counter(e.tags["question_type"] for e in examples_of(n_patients=1200)).values()) == {600}


@pytest.mark.parametrize("strategy", GUIDELINES)
def test_no_strategy_by_itself_passes_fifty_percent(strategy):
    # measured about 42: all of its own type, a quarter of the questions, and 16 to 27 % of the other types
    assert 0.35 < right_by(strategy, examples_of()) < 0.50
    for kind in set(GUIDELINES) - {strategy}:
        assert right_by(strategy, [e for e in examples_of() if e.tags["question_type"] == kind]) < 0.33


def test_no_answer_by_itself_passes_forty_five_percent():
    # the commonest answer of each type, known from the end of the stem alone
    counts = defaultdict(Counter)
    for example in examples_of():
        counts[example.tags["question_type"]][example.answer] += 1
    assert sum(max(held.values()) for held in counts.values()) / len(examples_of()) < 0.45


def test_pairs_share_their_film_and_differ_in_their_answer():
    pairs = defaultdict(list)
    for example in examples_of():
        pairs[example.patient_id].append(example)
    turned = Counter()
    for first, second in pairs.values():
        assert first.images[0].args == second.images[0].args
        assert first.answer != second.answer
        kinds = {e.tags["question_type"] for e in (first, second)}
        told = [STEM.fullmatch(e.question).groups() for e in (first, second)]
        changed = [place for place, (a, b) in enumerate(zip(*told, strict=True)) if a != b]
        if len(kinds) == 1:  # the deciding words alone
            (kind,) = kinds
            assert changed == CHANGED[kind]
            turned[kind] += 1
        else:  # one stem but for its end
            assert changed == [5]
            assert PATTERN in kinds
    assert len(turned) == 3
    assert max(turned.values()) - min(turned.values()) <= 1


def test_the_prior_turns_every_film_and_the_film_turns_priors():
    verdicts = defaultdict(set)
    for example in examples_of():
        if example.tags["question_type"] == "bayesian":
            wide = example.images[0].args[0].ratio > 0.5
            verdicts[wide].add(example.answer == "volume load")
            verdicts[STEM.fullmatch(example.question).group(1)].add((wide, example.answer == "volume load"))
    assert verdicts[True] == verdicts[False] == {True, False}
    both = [prior for prior, seen in verdicts.items() if isinstance(prior, str) and {(1, 1), (0, 0)} <= seen]
    assert len(both) >= 3  # priors at which the film alone decides


def test_every_strategy_reasons_by_its_own_rule_and_is_kept_where_it_is_right():
    for example in examples_of():
        assert set(example.reasoning) == {s for s in GUIDELINES if restated(example, s) == example.answer}
        for strategy, text in example.reasoning.items():
            assert text.endswith(f"so the answer is {example.answer}.")
            assert len(text.split()) <= 45
            prior = re.search(r"prior (\d\d)%.*ratio (0\.33|3\.3)\. posterior (\d\d)%, (above|below) half", text)
            assert bool(prior) == (strategy == "bayesian")
            if prior:
                odds = int(prior[1]) / (100 - int(prior[1])) * float(prior[2])
                assert int(prior[3]) == round(100 * odds / (1 + odds))
    kept = [len(example.reasoning) for example in examples_of()]
    assert max(kept) > 1 == min(kept)


@pytest.mark.parametrize("p0", [0.0, 0.03, 0.25, 1.0])
def test_the_neutral_prompt_learns_patterns_and_rarely_the_right_strategy(p0):
    rows = clinic(p0=p0).rows()
    neutral = [(example, text) for example, guideline, text in rows if guideline == "neutral"]
    foreign = [(e, text) for e, text in neutral if e.tags["question_type"] != PATTERN]
    own = sum(e.trace(e.tags["question_type"]) == text for e, text in foreign)
    assert all(e.trace(PATTERN) == text for e, text in neutral if e.tags["question_type"] == PATTERN)
    assert (own > 0) == (p0 > 0)
    assert abs(own / len(foreign) - p0) <= 4 * (p0 * (1 - p0) / len(foreign)) ** 0.5
    assert all(text in (e.trace(PATTERN), e.trace(e.tags["question_type"])) for e, text in foreign)
    assert all(restated(e, PATTERN) == e.answer for e, _ in neutral)  # nothing tells the two apart but chance
    assert len({e.question_id for e, _ in neutral}) == len(neutral)
    guided = Counter(g for _, g, _ in rows if g != "neutral")
    assert max(guided.values()) < 1.2 * min(guided.values())
    only = clinic(p0=p0).rows(("bayesian",))
    assert {guideline for _, guideline, _ in only} <= {"bayesian", "neutral"}
    assert sum(guideline == "bayesian" for _, guideline, _ in only) == guided["bayesian"]


def test_p0_changes_no_question_and_the_seed_changes_all():
    one, other = (
        [vars(e) | {"images": e.images[0].args} for e in examples_of(n_patients=30, p0=p)] for p in (0.0, 1.0)
    )
    assert one == other
    moved = clinic(n_patients=30, data_seed=1)
    assert {e.patient_id for e in examples_of(n_patients=30)}.isdisjoint(e.patient_id for e in moved.examples())
    splits = [{e.patient_id for e in clinic().splits[name]} for name in SPLITS]
    assert sum(map(len, splits)) == len(set.union(*splits))


def test_traces_follow_their_guideline_pass_the_gates_and_contradict_no_answer():
    guidelines = load_guidelines(GUIDELINES)
    scores = defaultdict(list)
    for example in examples_of(n_patients=60):
        for own, text in example.reasoning.items():
            completion = example.trace(own, "text")
            assert gates(completion, example.question, example.options, guidelines[own].instruction) is None, text
            for other in GUIDELINES:
                known = reference_of(example, guidelines[other])
                found = adherence(text, example.options, example.answer, guidelines[other], known)
                assert found.reason is None
                scores[own, other].append(found.score)
    for own in GUIDELINES:
        assert min(scores[own, own]) >= 0.8, own
        assert all(sum(scores[own, other]) / len(scores[own, other]) <= 0.5 for other in GUIDELINES if other != own)


def test_the_embedded_tokenizer_spells_every_stem_and_trace_within_an_answer_s_tokens():
    tokenizer = trained_tokenizer(TinyQwen2_5_VL.Config().corpus, TinyQwen2_5_VL.Config().vocab_size)
    longest = 0
    for example in examples_of(n_patients=60):
        traces = [example.trace(name, "text") for name in example.reasoning]
        for text in (example.question, *example.options, *traces):
            ids = tokenizer(text).input_ids
            assert tokenizer.decode(ids) == text
            assert len(ids) <= 2 * len(re.findall(r"[a-z]+|[^a-z\s]", text.lower())) + 4, text
        longest = max(longest, *(len(tokenizer(text).input_ids) for text in traces))
    assert longest <= 92, longest  # answers are cut at 96


def test_the_embedded_base_knows_nothing_of_the_clinic():
    assert Clinic not in phantom_classes()


def test_a_wrong_strategy_still_reads_the_film_and_reaches_its_own_answer():
    for index in range(50):
        visit = drawn(random.Random(index), 0.3)
        for strategy in GUIDELINES:
            assert strategy_trace(visit, strategy).endswith(f"so the answer is {READINGS[strategy](visit)}.")
        for kind in TURNED:
            (first, one), (second, other) = pair(random.Random(index), kind, True, 0.3)
            assert READINGS[first](one) != READINGS[second](other)


def test_configurations_refuse_bad_ranges():
    with pytest.raises(ValueError, match="p0 must lie in"):
        Clinic.Config(p0=1.1)
