# Reference: questions written by hand; statsmodels for kappa. Run: pytest tests/curation/test_curation_specialties.py
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa as reference

from configs.load import CONFIGS
from curation.specialties import assign, classification, classified, cohens_kappa, load_rules
from datamodules.batch import Example

RULES, POINTS = load_rules(CONFIGS / "curation" / "specialties.yaml")


def example(question, options=("yes", "no"), **tags):
    return Example("p", (), question, options, options[0], "q", tags=tags)


@pytest.mark.parametrize(
    ("question", "options", "tags", "specialty"),
    [
        ("A 3-month-old infant has a murmur; what is it?", ("yes", "no"), {}, "pediatrics"),
        ("How large is the heart?", ("normal", "enlarged"), {}, "adult_medicine"),
        ("Which bleeding is this?", ("subdural", "epidural"), {}, "brain_senses"),
        ("What is this skin lesion?", ("melanoma", "nevus"), {}, "oncology_surgery"),
        ("What is this?", ("one", "two"), {"body_system": "Nervous"}, "brain_senses"),
        ("What does the liver show?", ("one", "two"), {"body_system": "Nervous"}, "brain_senses"),  # 3 points beat 1
        ("What is this?", ("one", "two"), {}, "unassigned"),
        (
            "A childless man asks",
            ("one", "two"),
            {},
            "pediatrics",
        ),  # rules see words, not meaning: why there is an audit
    ],
)
def test_rules_by_hand(question, options, tags, specialty):
    made = example(question, options, **tags)
    assert assign(made, made.tags, RULES, POINTS).specialty == specialty


def test_the_reasons_are_told_and_the_order_breaks_ties():
    made = example("Is the heart or the brain larger?")
    found = assign(made, {}, RULES, POINTS)
    assert found.specialty == "brain_senses"  # one point each; it stands before adult_medicine
    assert found.why == ("brain*",)


def test_a_word_is_matched_whole():
    made = example("Is there a problem with the moles tone?", ("sheart", "hearts"))
    assert assign(made, {}, RULES, POINTS).specialty == "unassigned"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("tag_points: 3", "tag_points and specialties"),
        ("tag_points: 0\nspecialties: {pediatrics: {describes: a, phrases: [b]}}", "tag_points"),
        ("tag_points: 1\nspecialties: {dentistry: {describes: a, phrases: [b]}}", "pediatrics"),
        ("tag_points: 1\nspecialties: {pediatrics: {describes: a, phrases: ['*']}}", "phrases"),
        ("tag_points: 1\nspecialties: {pediatrics: {describes: a, tags: {modality: CT}}}", "tags"),
        ("tag_points: [", "YAML"),
    ],
)
def test_bad_rules_name_file_and_place(tmp_path, content, named):
    path = tmp_path / "rules.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=named) as caught:
        load_rules(path)
    assert str(path) in str(caught.value)


def test_a_classifier_is_asked_without_being_told():
    request = classification("r", example("How large is the heart?"), (), RULES)
    assert "How large is the heart?" in request.example.question
    assert request.example.options[0].split(" (")[0] == "Pediatrics"


@pytest.mark.parametrize(
    ("text", "specialty"),
    [
        ("<think>eye</think><answer>C</answer>", "brain_senses"),
        ("The answer is D.", "adult_medicine"),
        ("I cannot tell.", "unassigned"),
        ("It is A or B.", "unassigned"),
    ],
)
def test_a_classifiers_reply(text, specialty):
    assert classified(text, RULES) == specialty


def test_kappa_by_hand():
    # 20 a/a, 5 a/b, 10 b/a, 15 b/b: p_o = 35/50; p_e = (25*30 + 25*20)/2500 = 0.5; kappa = 0.2/0.5
    pairs = [("a", "a")] * 20 + [("a", "b")] * 5 + [("b", "a")] * 10 + [("b", "b")] * 15
    assert cohens_kappa(pairs) == pytest.approx(0.4, abs=1e-12)
    assert cohens_kappa([]) is None
    assert cohens_kappa([("a", "a")]) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=40))
def test_kappa_is_that_of_statsmodels(pairs):
    counts = Counter(pairs)
    table = np.array([[counts[a, b] for b in "abc"] for a in "abc"])
    ours = cohens_kappa(pairs)
    if ours is None:
        assert len(set(pairs)) == 1
    else:
        assert ours == pytest.approx(reference(table, return_results=False), abs=1e-9)
