# Reference: exemplars written by hand for each guideline, and properties; run with
# `pytest tests/lightning_modules/test_rewards.py`.
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import pytest

from datamodules.phantoms.base import phantom_classes
from evaluation.answers import LETTERS
from lightning_modules.rewards.adherence import CREDIT, Adherence, adherence, reference_of
from lightning_modules.rewards.combine import Rewards
from lightning_modules.rewards.correct import Correct
from lightning_modules.rewards.findings import reference
from lightning_modules.rewards.format import Format
from lightning_modules.rewards.gates import gates
from lightning_modules.rewards.guidelines import KINDS, NEUTRAL, Criterion, Guideline, load_guidelines

NAMES = ("differential", "intuitive", "analytical", "bayesian")
GUIDELINES = load_guidelines(NAMES)


@dataclass(frozen=True)
class Asked:
    question: str
    options: tuple[str, ...]
    letter: str
    reasoning: Mapping[str, str] = field(default_factory=dict)

    @property
    def answer(self):
        return self.options[LETTERS.index(self.letter)]


HEART = Asked("how large is the heart on this chest film?", ("normal", "enlarged"), "B")
LUNG = Asked(
    "A 34-year-old man has fever and night sweats. Which disease does the film show?",
    ("Tuberculosis", "Sarcoidosis", "Lung abscess", "Pneumothorax"),
    "A",
)
BLOOD = Asked("what should be done about the blood?", ("evacuate", "observe"), "A")

EXEMPLARS = {
    "differential": [
        (
            HEART,
            "heart 62 of 110, ratio 0.56. normal is unlikely because the ratio is above 0.50. enlarged fits. "
            "so the answer is enlarged.",
        ),
        (
            LUNG,
            "The film shows upper lobe cavities. Sarcoidosis would be possible, but it is less likely since it gives "
            "bilateral hilar nodes. Lung abscess is unlikely because there is no fluid level. Pneumothorax is "
            "ruled out, "
            "as the lung edge reaches the chest wall. The answer is Tuberculosis.",
        ),
        (
            BLOOD,
            "rim 14 mm, shift 07 mm. evacuate versus observe: the rim is over 10 and supports evacuate. observe "
            "is excluded "
            "because it needs a thin rim. so the answer is evacuate.",
        ),
        (
            HEART,
            "Two candidates. Enlarged is favoured by the ratio of 0.56. It cannot be normal, since that needs "
            "0.50 or less. "
            "I conclude enlarged.",
        ),
    ],
    "intuitive": [
        (HEART, "heart 62 of 110, ratio 0.56. wide heart shadow, typical picture: enlarged."),
        (LUNG, "Upper lobe cavities in a young man with night sweats: the classic picture of tuberculosis."),
        (BLOOD, "rim 14 mm, shift 07 mm. tight brain, looks like an emergency. so the answer is evacuate."),
        (HEART, "The heart fills the chest, recognised at a glance. The answer is enlarged."),
    ],
    "analytical": [
        (
            HEART,
            "heart 62 of 110, ratio 0.56. the ratio is above 0.50 because the heart is wide, which means the "
            "chamber is "
            "dilated, therefore enlarged.",
        ),
        (
            LUNG,
            "Macrophages fail to clear the mycobacteria, which leads to caseating granulomas. Necrosis results "
            "in cavities, "
            "because the dead tissue is coughed up. The upper lobes are hit since their oxygen tension is high. "
            "The answer "
            "is Tuberculosis.",
        ),
        (
            BLOOD,
            "rim 14 mm, shift 07 mm. because blood fills the closed skull, pressure rises, which means the brain is "
            "displaced. so the answer is evacuate.",
        ),
        (
            HEART,
            "Volume load stretches the left ventricle. This means that the cavity dilates, and as a result the shadow "
            "takes more than half of the chest. Conclusion: enlarged.",
        ),
    ],
    "bayesian": [
        (
            HEART,
            "prior 50%. heart 62 of 110, ratio 0.56, likelihood ratio 9, up. posterior 90%. so the answer is enlarged.",
        ),
        (
            LUNG,
            "The prevalence in this group is 20 %. Cavities have a likelihood ratio of 12 and raise the odds: the "
            "post-test probability is 75 percent. The answer is Tuberculosis.",
        ),
        (
            BLOOD,
            "prior 30%. rim 14 mm: likelihood ratio 18, odds go up. posterior 89%. so the answer is evacuate.",
        ),
        (HEART, "Pre-test 40%. A ratio of 0.56 has LR 6, which raises it. Updated: 80%. The answer is enlarged."),
    ],
}
ALL = [(name, asked, text) for name, pairs in EXEMPLARS.items() for asked, text in pairs]


def tagged(thinking, answer="B"):
    return f"<think>{thinking}</think><answer>{answer}</answer>"


def score(thinking, asked, name, answer=None):
    return adherence(thinking, asked.options, answer or asked.answer, GUIDELINES[name])


@pytest.mark.parametrize(("name", "asked", "text"), ALL)
def test_exemplars_follow_their_own_guideline_and_not_the_others(name, asked, text):
    assert score(text, asked, name).score >= 0.8
    others = [score(text, asked, other).score for other in NAMES if other != name]
    assert sum(others) / 3 <= 0.5
    assert max(others) < score(text, asked, name).score - 0.2
    assert gates(tagged(text, asked.letter), asked.question, asked.options, GUIDELINES[name].instruction) is None


@pytest.mark.parametrize("phantom", phantom_classes(), ids=lambda phantom: phantom.PREFIX)
def test_phantom_traces_follow_their_guideline_and_pass_the_gates(phantom):
    scores = {(own, other): [] for own in NAMES for other in NAMES}
    for example in phantom(phantom.Config(n_patients=60)).examples():
        for own, text in example.reasoning.items():
            completion, instruction = tagged(text, example.letter), GUIDELINES[own].instruction
            assert gates(completion, example.question, example.options, instruction) is None, text
            for other in NAMES:
                known = reference_of(example, GUIDELINES[other])
                found = adherence(text, example.options, example.answer, GUIDELINES[other], known)
                assert found.criteria["reads_the_picture"] == 1.0, text
                scores[own, other].append(found.score)
    for own in NAMES:
        assert min(scores[own, own]) >= 0.8
        assert all(sum(scores[own, other]) / len(scores[own, other]) <= 0.5 for other in NAMES if other != own)


def test_adherence_tells_the_guidelines_apart():
    # area under the curve: the share of (own, other) pairs in which the own exemplar scores higher
    for name in NAMES:
        own = [score(text, asked, name).score for n, asked, text in ALL if n == name]
        other = [score(text, asked, name).score for n, asked, text in ALL if n != name]
        assert sum((a > b) + 0.5 * (a == b) for a, b in itertools.product(own, other)) / (len(own) * len(other)) >= 0.95


@pytest.mark.parametrize(("name", "asked", "text"), ALL)
def test_a_reasoning_that_concludes_something_else_gets_nothing(name, asked, text):
    for letter, option in zip(LETTERS, asked.options, strict=False):
        if option != asked.answer:
            assert gates(tagged(text, letter), asked.question, asked.options, "") == "contradiction"
            found = score(text, asked, name, answer=option)
            assert (found.score, found.reason) == (0.0, "contradiction")


@pytest.mark.parametrize(("name", "asked", "text"), ALL)
def test_case_and_form_of_characters_do_not_matter(name, asked, text):
    expected = score(text, asked, name).score
    assert score(text.upper(), asked, name).score == expected
    assert score(text.replace(" ", "\u00a0"), asked, name).score == expected


@pytest.mark.parametrize("name", ["differential", "bayesian"])
def test_shuffled_sentences_lose(name):
    # what stands behind the conclusion did not lead to it
    asked, text = EXEMPLARS[name][0]
    pieces = [piece.strip() for piece in text.rstrip(".").split(". ")]
    orders = list(itertools.permutations(pieces))
    shuffled = [score(". ".join(order) + ".", asked, name).score for order in orders]
    first = [s for order, s in zip(orders, shuffled, strict=True) if order[0].startswith("so the answer")]
    assert max(first) <= 0.25
    assert sum(shuffled) / len(shuffled) <= 0.6 * score(text, asked, name).score


@pytest.mark.parametrize(("name", "asked", "text"), [case for case in ALL if case[2].count(". ") >= 1])
def test_a_conclusion_before_its_reasons_loses(name, asked, text):
    pieces = text.split(". ")
    if pieces[-1].lower().startswith(("so the answer", "the answer", "i conclude", "conclusion")):
        moved = ". ".join([pieces[-1].rstrip("."), *pieces[:-1]]) + "."
        assert score(moved, asked, name).score <= 0.5 * score(text, asked, name).score


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("differential", "normal is not unlikely because the ratio is 0.50. enlarged fits. so the answer is enlarged."),
        (
            "differential",
            "normal cannot be excluded because the ratio is 0.50. enlarged fits. so the answer is enlarged.",
        ),
        ("differential", "normal is unlikely. enlarged fits. so the answer is enlarged."),
        (
            "analytical",
            "it is wide, not because the heart is big, not because the chest is small, so the answer is enlarged.",
        ),
        ("analytical", "because, therefore, thus, hence. so the answer is enlarged."),
        ("bayesian", "no prior, no likelihood ratio, no percentages. so the answer is enlarged."),
        ("bayesian", "prior 500%. posterior 900%. so the answer is enlarged."),
        ("intuitive", "so the answer is enlarged."),
        ("intuitive", "no typical picture, normal or not. so the answer is enlarged."),
    ],
)
def test_denied_hollow_and_impossible_statements_earn_little(name, text):
    assert score(text, HEART, name).score <= 0.5


def test_rejection_needs_a_reason_by_hand():
    # differential: candidates weigh 1, exclusion with a reason 2, of 3
    with_reason = score(
        "normal is unlikely because it is 0.56. enlarged fits. the answer is enlarged.", HEART, "differential"
    )
    without = score("normal is unlikely. enlarged fits. the answer is enlarged.", HEART, "differential")
    assert (with_reason.score, without.score) == (1.0, pytest.approx(1 / 3))
    assert without.criteria == {"weighs_candidates": 1.0, "excludes_with_reason": 0.0}


@pytest.mark.parametrize(
    ("text", "credit"),
    [
        ("prior 50%. likelihood ratio 9, up. posterior 90%.", 1),
        ("prior 50%. likelihood ratio 9, down. posterior 90%.", 0),
        ("prior 50%. likelihood ratio 0.1, up. posterior 90%.", 0),
        ("prior 90%. likelihood ratio 0.1, down. posterior 50%.", 1),
        ("prior 90%. likelihood ratio 9. posterior 50%.", 0),
        ("posterior 90%. likelihood ratio 9, up. prior 50%.", 0),
        ("prior 50%. posterior 90%.", 0),
        ("likelihood ratio 9, up. posterior 90%.", 0),
    ],
)
def test_the_update_moves_as_said(text, credit):
    found = score(text + " so the answer is enlarged.", HEART, "bayesian")
    assert found.criteria["moves_as_said"] == credit


def test_the_aggregate_by_hand():
    # weights 3, 1 and a pitfall of -2: (3 · 1/2 + 1 · 1 - 2 · 1) / 4 = 0.125; clipped to 0 with a heavier pitfall
    criteria = (
        Criterion("links", "causal_links", 3, at_least=2),
        Criterion("words", "min_words", 1, at_least=4),
        Criterion("slang", "patterns", -2, phrases=("gonna",)),
    )
    guideline = Guideline("own", "x", "think.", criteria)
    text = "it is wide because water collects and is gonna stay. the answer is enlarged."
    assert adherence(text, HEART.options, "enlarged", guideline).score == pytest.approx(0.125)
    heavy = replace(guideline, criteria=(*criteria[:2], replace(criteria[2], weight=-5)))
    assert adherence(text, HEART.options, "enlarged", heavy).score == 0.0


def test_adherence_refuses_what_cannot_be_scored():
    with pytest.raises(ValueError, match="not among the options"):
        score("x", HEART, "bayesian", answer="huge")
    with pytest.raises(ValueError, match="no criteria"):
        adherence("x", HEART.options, "normal", load_guidelines([NEUTRAL])[NEUTRAL])


PROMPT = f"{HEART.question} A) normal B) enlarged"
GATED = [
    ("", "empty_thinking"),
    ("   \n ", "empty_thinking"),
    ("... ... ... ...", "empty_thinking"),
    ("enlarged", "empty_thinking"),
    ("enlarged enlarged enlarged enlarged", "empty_thinking"),
    ("normal enlarged, enlarged normal", "empty_thinking"),
    ("hm hm hm", "empty_thinking"),
    (HEART.question, "echo"),
    (PROMPT, "echo"),
    (PROMPT + " so the answer is enlarged.", "echo"),
    (f"{PROMPT} {GUIDELINES['differential'].instruction}", "echo"),
    (GUIDELINES["differential"].instruction, "echo"),
    (GUIDELINES["differential"].instruction.upper(), "echo"),
    ("so <answer>A</answer> then", "answer_in_thinking"),
    ("so <Answer>B</Answer> then", "answer_in_thinking"),
    ("because " * 30, "empty_thinking"),
    ("because therefore " * 30 + "enlarged", "stuffing"),
    ("the ratio is above the line and so enlarged. " * 4, "stuffing"),
    ("because therefore thus hence prior posterior likelihood typical enlarged", "stuffing"),
    ("differential, unlikely because prior 50% posterior 90%, therefore typical pattern, enlarged", "stuffing"),
    ("one <think> more thing", "unparsed"),
]


REWARDS = Rewards([Correct(), Format(), Adherence()])


@pytest.mark.parametrize(("thinking", "gate"), GATED)
def test_worthless_completions_get_nothing_though_the_letter_is_right(thinking, gate):
    found = REWARDS(tagged(thinking), HEART, GUIDELINES["differential"])
    assert (found.total, found.between, found.within, found.right) == (0.0, 0.0, 0.0, False)
    assert found.parts == {"correct": 0.0, "format": 0.0, "adherence": 0.0}
    assert (found.gate, found.criteria) == (gate, {})
    assert found.letter == (None if gate in ("unparsed", "answer_in_thinking") else "B")


@pytest.mark.parametrize(
    ("thinking", "asked"),
    [
        ("it says enlarged.", HEART),
        ("normal is unlikely, enlarged heart", HEART),
        ("the heart on this film is wide, ratio 0.56, enlarged", HEART),
        (
            "The question is which disease the film shows in a man of 34 with night sweats. Cavities speak for "
            "Tuberculosis.",
            LUNG,
        ),
        ("Tuberculosis, Sarcoidosis, Lung abscess and Pneumothorax are to be weighed here.", LUNG),
    ],
)
def test_honest_short_reasoning_passes(thinking, asked):
    assert gates(tagged(thinking), asked.question, asked.options, GUIDELINES["differential"].instruction) is None


def test_long_options_may_be_repeated():
    options = ("evacuate the haematoma within four hours", "observe with a repeat scan in six hours")
    thinking = (
        "the rim is 14 mm, so evacuate the haematoma within four hours, not observe with a repeat scan in six hours."
    )
    assert gates(tagged(thinking, "A"), "what should be done now?", options, "") is None
    assert gates(tagged(" ".join(options), "A"), "what should be done now?", options, "") == "empty_thinking"


EVERY_KIND = Guideline(
    "all", "x", "think.", tuple(replace(c, name=f"{g}/{c.name}") for g in NAMES for c in GUIDELINES[g].criteria)
)
BOMBS = "a|because |enlarged |enlarged. |not |normal is unlikely because it is. |50% |prior 50% posterior |"
BOMBS += "(b) |is not unlikely |no\n|ﷺ|<"


@pytest.mark.parametrize("piece", BOMBS.split("|"))
def test_a_hundred_kilobytes_are_scored_in_time(piece):
    text = piece * (100_000 // len(piece.encode())) + " the heart is wide, so the answer is enlarged."
    begin = time.process_time()
    gates(tagged(text), HEART.question, HEART.options, EVERY_KIND.instruction)
    known = reference(tuple(text for _, asked, text in ALL if asked is HEART), HEART.question)
    assert 0 <= adherence(text, HEART.options, "enlarged", EVERY_KIND, known).score <= 1
    assert time.process_time() - begin < 4


def test_time_grows_linearly():
    def seconds(copies):
        text = "normal is unlikely because 50% is prior. " * copies + "so the answer is enlarged."
        begin = time.process_time()
        score(text, HEART, "differential")
        return time.process_time() - begin

    seconds(100)
    assert min(seconds(8000) for _ in range(3)) < 16 * max(min(seconds(2000) for _ in range(3)), 1e-3)


def test_shipped_guidelines_are_complete():
    found = load_guidelines([*NAMES, NEUTRAL])
    assert list(found) == [*NAMES, NEUTRAL]
    assert (found[NEUTRAL].instruction, found[NEUTRAL].criteria) == ("", ())
    for name in NAMES:
        assert len(found[name].instruction.split()) <= 12
        assert "10.1038/s41746-024-01010-1" in found[name].source
    assert len({found[name].instruction for name in NAMES}) == 4
    assert set(CREDIT) == set(KINDS)
    assert all(any(criterion.kind == "grounded" for criterion in found[name].criteria) for name in NAMES)
    assert {key for keys in KINDS.values() for key in keys} <= {item.name for item in fields(Criterion)}


OWN = """
name: own
source: our ward
instruction: say what you see first.
prior: 2
criteria:
  - {name: sees, kind: patterns, phrases: ["I see", look*], weight: 1.5}
"""


def test_a_lab_adds_its_own_by_a_file(tmp_path):
    (tmp_path / "own.yaml").write_text(OWN)
    for found in (load_guidelines([str(tmp_path / "own.yaml")]), load_guidelines(["own"], tmp_path)):
        assert found["own"].prior == 2
        assert adherence("i see water, the answer is normal", HEART.options, "normal", found["own"]).score == 1
        assert adherence("looking at water: normal", HEART.options, "normal", found["own"]).score == 1
        assert adherence("overlooked water: normal", HEART.options, "normal", found["own"]).score == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("prior: 2", "pior: 2", "unknown key 'pior'; did you mean 'prior'"),
        ("prior: 2", "prior: 0", "prior must be finite and above 0"),
        ("prior: 2", "prior: true", "prior must be a number"),
        ("name: own", "name: other", "expected the file's name 'own'"),
        ("source: our ward", "", "missing key 'source'"),
        ("instruction: say what you see first.", "instruction: ''", "one line of text"),
        ("kind: patterns", "kind: pattern", "did you mean 'patterns'"),
        ("weight: 1.5", "weight: 0", "weight must be finite and not 0"),
        ("weight: 1.5", "weight: -1", "at least one with a positive weight"),
        ("weight: 1.5", "share: 0.5", "unknown key 'share'"),
        ('kind: patterns, phrases: ["I see", look*], weight: 1.5', "kind: grounded", "share must lie in (0, 1]"),
        ('kind: patterns, phrases: ["I see", look*], weight', "kind: grounded, weight", "unknown key 'weight'"),
        ('kind: patterns, phrases: ["I see", look*], weight: 1.5', "kind: grounded, share: 1", "a positive weight"),
        ("weight: 1.5", "at_most: 3", "unknown key 'at_most'"),
        ("weight: 1.5", "at_least: 3", "only 2 phrases"),
        ("weight: 1.5", "at_least: 1.0", "whole number"),
        ('["I see", look*]', "[no]", "list of texts"),
        ('["I see", look*]', '["*"]', "only at its end"),
        ('["I see", look*]', "[]", "phrases must be given"),
        ("criteria:", "criteria: [", "own.yaml"),
    ],
)
def test_wrong_guideline_files_are_named(tmp_path, old, new, message):
    assert old in OWN
    (tmp_path / "own.yaml").write_text(OWN.replace(old, new))
    with pytest.raises(ValueError, match=r"own\.yaml: ") as error:
        load_guidelines(["own"], tmp_path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "names", [["differntial"], ["../guidelines/bayesian"], ["/etc/x.yaml"], ["bayesian", "bayesian"]]
)
def test_unknown_and_repeated_names_are_refused(names):
    with pytest.raises(ValueError, match=r"unknown name|no such file|named twice"):
        load_guidelines(names)
