# Reference: the published rules re-stated here, Bayes' rule, and a ridge regression on pixels.
# Run: pytest tests/datamodules/test_phantoms.py
from __future__ import annotations

import pickle
import random
import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from datamodules.batch import LETTERS, load_image
from datamodules.phantoms.base import GUIDELINES, phantom_classes, posterior, texts_of
from datamodules.phantoms.chest import ChestFilms, Film
from datamodules.phantoms.head import HeadCTs
from datamodules.phantoms.perception import SCRAP_WORDS, PerceptionMixture, bodies, clinical_texts
from datamodules.phantoms.skin import SkinLesions
from datamodules.phantoms.spine import SpineFilm, SpineFilms, centre_line

SPECIALTIES = (ChestFilms, HeadCTs, SkinLesions, SpineFilms)
PICTURES_PER_SET = 12


@cache
def examples_of(specialty):
    return tuple(example for split in specialty(specialty.Config()).splits.values() for example in split)


@cache
def perception():
    return PerceptionMixture(PerceptionMixture.Config(n_rows=3000))


def case_of(example):
    return example.images[0].args[0]


def by_kind(specialty, kind):
    return [example for example in examples_of(specialty) if example.tags["question_type"] == kind]


def named(text, options):
    """Options whose text stands in `text` as whole words."""
    return {option for option in options if re.search(rf"\b{re.escape(option)}\b", text)}


def test_walk_finds_the_specialties():
    assert set(phantom_classes()) == set(SPECIALTIES)


@pytest.mark.parametrize("specialty", SPECIALTIES)
def test_same_seed_same_patients_and_pictures(specialty):
    first, second = (list(specialty(specialty.Config(n_patients=20)).examples()) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert (one.question_id, one.options, one.answer, one.reasoning) == (
            other.question_id,
            other.options,
            other.answer,
            other.reasoning,
        )
    for one, other in list(zip(first, second, strict=True))[:PICTURES_PER_SET]:
        assert load_image(one.images[0]).tobytes() == load_image(other.images[0]).tobytes()
        assert load_image(pickle.loads(pickle.dumps(one.images[0]))).tobytes() == load_image(one.images[0]).tobytes()
    elsewhere = list(specialty(specialty.Config(n_patients=20, data_seed=1)).examples())
    assert {e.patient_id for e in elsewhere}.isdisjoint(e.patient_id for e in first)
    assert [case_of(e) for e in elsewhere] != [case_of(e) for e in first]


@pytest.mark.parametrize("specialty", SPECIALTIES)
def test_pictures_open_and_show_something(specialty):
    for example in examples_of(specialty)[:PICTURES_PER_SET]:
        image = load_image(example.images[0])
        assert image.size == (112, 112)
        assert image.mode == "RGB"
        assert np.asarray(image).std() > 20


@pytest.mark.parametrize("specialty", SPECIALTIES)
def test_question_format(specialty):
    for example in examples_of(specialty):
        assert 2 <= len(example.options) <= 5
        assert len(example.question.split()) <= 15
        assert all(len(option.split()) <= 4 for option in example.options)
        assert set(example.tags) == {"question_type", "modality"}
        assert tuple(example.reasoning) == GUIDELINES
    assert len({e.patient_id for e in examples_of(specialty)}) * 2 == len(examples_of(specialty))


@pytest.mark.parametrize("specialty", SPECIALTIES)
def test_no_patient_in_two_splits(specialty):
    splits = specialty(specialty.Config()).splits
    patients = [{example.patient_id for example in split} for split in splits.values()]
    assert sum(map(len, patients)) == len(set.union(*patients))


@pytest.mark.parametrize("specialty", SPECIALTIES)
def test_letters_and_classes_are_balanced(specialty):
    for kind, shares in specialty.PREVALENCE.items():
        examples = by_kind(specialty, kind)
        letters = Counter(example.letter for example in examples)
        for letter in LETTERS[: len(shares)]:
            assert abs(letters[letter] / len(examples) - 1 / len(shares)) < 0.10, (kind, letters)
        answers = Counter(example.answer for example in examples)
        assert sum(shares.values()) == pytest.approx(1)
        for option, share in shares.items():
            assert abs(answers[option] / len(examples) - share) < 0.07, (kind, answers)
            assert abs(share - 1 / len(shares)) < 0.06


def test_heart_size_by_the_ratio():
    for example in by_kind(ChestFilms, "heart_size"):
        case = case_of(example)
        assert example.answer == ("enlarged" if case.heart / case.chest > 0.50 else "normal")
        assert abs(case.heart / case.chest - 0.50) > 0.01  # the gap that difficulty 0.3 leaves


def test_effusion_is_named_by_the_patients_side():
    expected = {(0, 0): "no effusion", (1, 0): "right effusion", (0, 1): "left effusion", (1, 1): "both sides"}
    for example in by_kind(ChestFilms, "effusion"):
        assert example.answer == expected[case_of(example).blunt]


def test_scoliosis_grade_and_side():
    for example in by_kind(SpineFilms, "severity"):
        cobb = case_of(example).cobb
        grade = "no scoliosis" if cobb < 10 else "mild" if cobb < 25 else "moderate" if cobb < 45 else "severe"
        assert example.answer == grade
    for example in by_kind(SpineFilms, "convexity"):
        case = case_of(example)
        side = "no curve" if case.cobb < 10 else "right convex" if case.side == 1 else "left convex"
        assert example.answer == side


def test_haematoma_surgery_and_diagnosis():
    for example in by_kind(HeadCTs, "surgery"):
        case = case_of(example)
        limit = 15 if case.shape == "lens" else 10
        assert example.answer == ("evacuate" if case.thickness > limit or case.shift > 5 else "observe")
    reasons = Counter(
        (case_of(e).thick, case_of(e).shifted) for e in by_kind(HeadCTs, "surgery") if e.answer == "evacuate"
    )
    assert min(reasons.values()) > 0.2 * reasons.total()  # each side of the OR, and both, occur
    assert len(reasons) == 3
    for example in by_kind(HeadCTs, "diagnosis"):
        expected = {"crescent": "subdural", "lens": "epidural", "absent": "no haematoma"}
        assert example.answer == expected[case_of(example).shape]


def test_abcd_rule():
    for example in by_kind(SkinLesions, "verdict"):
        case = case_of(example)
        score = 1.3 * case.asymmetry + 0.1 * case.border + 0.5 * len(case.colours) + 0.5 * len(case.structures)
        assert example.answer == ("benign" if score < 4.75 else "suspicious" if score <= 5.45 else "melanoma")
        assert f"{score:.1f}" in example.reasoning["analytical"]
        assert len(set(case.colours)) == len(case.colours)
        assert len(set(case.structures)) == len(case.structures)
    for example in by_kind(SkinLesions, "asymmetry"):
        assert example.answer == ("symmetric", "one axis", "two axes")[case_of(example).asymmetry]


def test_numbers_in_the_reading_are_the_patients():
    for example in by_kind(ChestFilms, "heart_size"):
        heart, chest, ratio = re.match(
            r"heart (\d\d) of (\d\d), ratio (0\.\d\d)\.", example.reasoning["intuitive"]
        ).groups()
        assert (int(heart), int(chest)) == (case_of(example).heart, case_of(example).chest)
        assert float(ratio) == pytest.approx(int(heart) / int(chest), abs=0.005001)
    for example in by_kind(SpineFilms, "severity"):
        assert example.reasoning["analytical"].startswith(f"curve {case_of(example).cobb:02d} degrees")
    for example in by_kind(HeadCTs, "surgery"):
        case = case_of(example)
        assert f"{case.shape} rim {case.thickness:02d} mm, shift {case.shift:02d} mm." in example.reasoning["bayesian"]


@pytest.mark.parametrize("specialty", SPECIALTIES)
def test_traces_begin_with_one_reading_and_end_in_the_answer(specialty):
    for example in examples_of(specialty):
        assert len({text.split(". ")[0] for text in example.reasoning.values()}) == 1
        for guideline, text in example.reasoning.items():
            assert text == text.lower()
            assert 12 <= len(text.split()) <= 45, (guideline, text)
            assert text.endswith(f"so the answer is {example.answer}."), text
            assert named(text.split(". ")[-1], example.options) == {example.answer}
        assert len(example.reasoning["intuitive"].split()) == min(len(t.split()) for t in example.reasoning.values())
        assert len(example.reasoning["intuitive"].split()) <= 20


@pytest.mark.parametrize("specialty", SPECIALTIES)
def test_guidelines_differ_in_structure(specialty):
    link = re.compile(r"\b(because|therefore|which means)\b")
    for example in examples_of(specialty):
        reasoning = example.reasoning
        assert len(named(reasoning["differential"], example.options)) == 2
        assert re.search(r"(unlikely|excluded) because", reasoning["differential"])
        for other in ("intuitive", "analytical", "bayesian"):
            assert named(reasoning[other], example.options) == {example.answer}, reasoning[other]
        assert len(link.findall(reasoning["analytical"])) >= 2
        assert not link.search(reasoning["intuitive"] + reasoning["bayesian"])
        for other in ("differential", "intuitive", "analytical"):
            assert "%" not in reasoning[other]


@pytest.mark.parametrize("specialty", SPECIALTIES)
def test_bayes_numbers(specialty):
    pattern = re.compile(r"prior (\d\d)%.*likelihood ratio (\d\d).*posterior (\d\d)%")
    ratios = set()
    for example in examples_of(specialty):
        prior, ratio, result = map(int, pattern.search(example.reasoning["bayesian"]).groups())
        shares = specialty.PREVALENCE[example.tags["question_type"]]
        assert prior == round(100 * shares[example.answer])
        odds = prior / (100 - prior) * ratio
        assert result == round(100 * odds / (1 + odds))
        ratios.add(ratio)
    assert ratios == {4, 18}


def test_posterior_by_hand():
    # prior 1/4 is odds 1:3; times 18 is 6:1, so 6/7. A ratio of 1 changes nothing.
    assert posterior(0.25, 18) == pytest.approx(6 / 7)
    assert posterior(0.3, 1) == pytest.approx(0.3)


@pytest.mark.parametrize("specialty", SPECIALTIES)
def test_difficulty_adds_distraction(specialty):
    def roughness(difficulty):
        total = 0.0
        for index in range(6):
            case = specialty.sample(random.Random(index), difficulty)
            pixels = np.asarray(specialty.draw(case).convert("L"), dtype=float)
            total += np.abs(np.diff(pixels[:12], axis=1)).mean()  # a strip of background
        return total

    assert roughness(0.0) < roughness(0.3) < roughness(1.0)


def test_gap_around_the_cutoff_shrinks_with_difficulty():
    def nearest(difficulty):
        cases = [ChestFilms.sample(random.Random(index), difficulty) for index in range(400)]
        return min(abs(case.heart / case.chest - 0.5) for case in cases)

    assert nearest(0.0) > nearest(0.5) > nearest(1.0)


@pytest.mark.parametrize(("heart", "chest"), [(32, 88), (40, 92), (48, 84), (58, 90)])
def test_heart_width_is_in_the_pixels(heart, chest):
    # Without distractions, count bright pixels on the rows between the lungs; the two halves of the heart are widest
    # at rows 66 and 71, so the widest extent over these rows is the heart.
    case = Film(heart, chest, (False, False), 14.0, 0.0, 7)
    pixels = np.asarray(ChestFilms.draw(case).convert("L"), dtype=float)[64:74]
    between_walls = np.abs(np.arange(112) + 0.5 - 56) < chest / 2 - 2
    heart_columns = np.flatnonzero((pixels > 0.6 * 255).any(axis=0) & between_walls)
    assert heart_columns.max() - heart_columns.min() + 1 == pytest.approx(heart, abs=2)


@pytest.mark.parametrize("cobb", [0, 9, 25, 47, 70])
def test_column_of_vertebrae_has_the_cobb_angle(cobb):
    case = SpineFilm(cobb, 1, 8.0, 88.0, 0.0, 0)
    x, y, tilt = centre_line(case)
    assert np.degrees(tilt.max() - tilt.min()) == pytest.approx(cobb, rel=0.03, abs=0.01)
    assert x[0] == pytest.approx(x[-1], abs=0.5)  # returns to the midline
    apex = x[np.argmin(np.abs(y - 52))]
    assert (apex > x[0] + 1) == (cobb >= 9)


READOUTS = {
    ChestFilms: {
        "ratio": lambda case: case.ratio,
        "left": lambda case: case.blunt[0],
        "right": lambda case: case.blunt[1],
    },
    SpineFilms: {"cobb": lambda case: case.cobb, "side": lambda case: case.side * case.cobb},
    HeadCTs: {
        "thickness": lambda case: case.thickness,
        "shift": lambda case: case.shift,
        "lens": lambda case: case.shape == "lens",
    },
    SkinLesions: {"asymmetry": lambda case: case.asymmetry, "colours": lambda case: len(case.colours)},
}


@pytest.mark.parametrize("specialty", SPECIALTIES)
def test_quantities_can_be_read_linearly_off_new_patients(specialty):
    pixels, targets = [], []
    for index in range(420):
        case = specialty.sample(random.Random(f"readout {index}"), 0.3)
        pixels.append(np.asarray(specialty.draw(case), dtype=float).reshape(28, 4, 28, 4, 3).mean(axis=(1, 3)).ravel())
        targets.append([float(read(case)) for read in READOUTS[specialty].values()])
    pixels, targets = np.array(pixels) / 255, np.array(targets)
    train, new = slice(0, 320), slice(320, 420)
    mean, centre = pixels[train].mean(axis=0), targets[train].mean(axis=0)
    kernel = (pixels - mean) @ (pixels[train] - mean).T
    weights = np.linalg.solve(kernel[train] + 1.0 * np.eye(320), targets[train] - centre)
    rest = ((targets[new] - centre - kernel[new] @ weights) ** 2).sum(axis=0)
    r2 = 1 - rest / ((targets[new] - targets[new].mean(axis=0)) ** 2).sum(axis=0)
    assert (r2 > 0.8).all(), dict(zip(READOUTS[specialty], r2.round(2), strict=True))


def test_perception_teaches_no_medicine():
    # the option to pick is independent of the picture: right no more often than a uniform draw would be
    hits, expected, variance = 0.0, 0.0, 0.0
    for split in perception().splits.values():
        for example in split:
            if not example.images:
                continue
            case = case_of(example)
            specialty = next(one for one in SPECIALTIES if one.draw is example.images[0].func)
            verdicts = {question.answer for question in specialty.questions(case, random.Random(0))}
            chance = len(verdicts & set(example.options)) / len(example.options)
            hits += example.answer in verdicts
            expected += chance
            variance += chance * (1 - chance)
    assert expected > 200
    assert abs(hits - expected) < 4 * variance**0.5, (hits, expected)


def test_perception_scraps_carry_no_argument():
    sentences = {" ".join(words).strip(",.;:") for words in bodies() if len(words) > SCRAP_WORDS[1]}
    rows = [e for split in perception().splits.values() for e in split if e.question.startswith("say ")]
    assert len(rows) > 100
    for example in rows:
        assert not any(sentence in example.question for sentence in sentences), example


def test_perception_lookups_are_uniform_over_letters_and_name_the_option():
    lookups = [e for split in perception().splits.values() for e in split if e.tags["question_type"] == "lookup"]
    assert len(lookups) > 200
    for count in range(2, 6):
        letters = Counter(e.letter for e in lookups if len(e.options) == count)
        for letter in LETTERS[:count]:
            spread = (letters.total() * (1 / count) * (1 - 1 / count)) ** 0.5
            assert abs(letters[letter] - letters.total() / count) < 4 * spread, (count, letters)
    assert all(e.answer in e.question and e.answer in e.reasoning["neutral"] for e in lookups)
    assert {e.answer for e in lookups} == clinical_texts()


def test_perception_reads_in_the_words_of_the_traces():
    first_clauses = {
        text.split(". ")[0] for one in SPECIALTIES for e in examples_of(one) for text in e.reasoning.values()
    }
    shapes = {re.sub(r"\d", "0", clause) for clause in first_clauses}
    readings = [e for s in perception().splits.values() for e in s if e.tags["question_type"] == "reading"]
    assert shapes <= {re.sub(r"\d", "0", e.reasoning["neutral"].split(". ")[0]) for e in readings}


def test_perception_patients_are_new_and_rows_are_neutral():
    modules = perception()
    seen = {str(case_of(e)) for s in modules.splits.values() for e in s if e.images}
    for specialty in SPECIALTIES:
        assert seen.isdisjoint(str(case_of(e)) for e in examples_of(specialty))
    rows = modules.rows()
    assert len(rows) == len(modules.splits["train"])
    assert {guideline for _, guideline, _ in rows} == {"neutral"}
    kinds = Counter(e.tags["modality"] for e in modules.splits["train"])
    assert min(kinds.values()) > 0.08 * kinds.total()


def test_corpus_holds_training_text_only():
    text = list(texts_of([ChestFilms]))
    splits = ChestFilms().splits
    assert len(text) == 5 * len(splits["train"])
    assert splits["train"][0].trace("bayesian") in text


def test_configurations_refuse_bad_ranges():
    with pytest.raises(ValueError, match=r"difficulty must lie in \[0, 1\], got 1.5"):
        ChestFilms.Config(difficulty=1.5)
    with pytest.raises(ValueError, match="n_patients must be at least 1"):
        ChestFilms.Config(n_patients=0)
    with pytest.raises(ValueError, match="shares names sums; there are reading, "):
        PerceptionMixture.Config(shares={"reading": 1, "sums": 1})
    with pytest.raises(ValueError, match=r"shares.letters must be at least 0, got -1"):
        PerceptionMixture.Config(shares={"reading": 2, "letters": -1})
    with pytest.raises(ValueError, match="no question type a weight"):
        PerceptionMixture.Config(shares={"reading": 0})
    with pytest.raises(ValueError, match="n_rows"):
        PerceptionMixture.Config(n_rows=0)
