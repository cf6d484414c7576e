# Reference: sums and bounds by hand, DAPO's equation 13, and properties on generated completions. Run:
# pytest tests/lightning_modules/test_reward_terms.py.
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.batch import Example
from lightning_modules.rewards.adherence import Adherence, adherence, reference_of
from lightning_modules.rewards.combine import Rewards
from lightning_modules.rewards.correct import Correct
from lightning_modules.rewards.findings import Finding, grounding, reference
from lightning_modules.rewards.format import Format
from lightning_modules.rewards.guidelines import NEUTRAL, load_guidelines
from lightning_modules.rewards.overlong import Overlong
from lightning_modules.rewards.reading import mentions, normal
from lightning_modules.rewards.term import RewardTerm

NAMES = ("differential", "intuitive", "analytical", "bayesian")
GUIDELINES = load_guidelines([*NAMES, NEUTRAL])
TRACES = {
    "differential": "heart 62 of 110, ratio 0.56. normal is unlikely because the ratio is above 0.50. enlarged fits. "
    "so the answer is enlarged.",
    "intuitive": "heart 62 of 110, ratio 0.56. wide shadow, typical picture. so the answer is enlarged.",
    "analytical": "heart 62 of 110, ratio 0.56. because volume load stretches the chamber, which means a wide shadow. "
    "so the answer is enlarged.",
    "bayesian": "heart 62 of 110, ratio 0.56. prior 50%. likelihood ratio 9, up. posterior 90%. so the answer is "
    "enlarged.",
}
HEART = Example("p", (), "how large is the heart on this film?", ("normal", "enlarged"), "enlarged", "q", TRACES)
RIGHT = HEART.trace("differential")
WRONG = "<think>ratio 0.40 and slim, so the answer is normal.</think><answer>A</answer>"
GATED = "<think></think><answer>B</answer>"


def weighted(correct=1.0, format=0.1, adherence=0.2):
    pairs = ((Correct, correct), (Format, format), (Adherence, adherence))
    return [term(term.Config(weight)) for term, weight in pairs]


class Short(RewardTerm):
    """A lab's own term: one class, one method."""

    def score(self, judged):
        return float(len(judged.thinking.split()) <= 12)


def test_reward_by_hand():
    rewards = Rewards(weighted(1.0, 0.1, 0.3))
    found = rewards(RIGHT, HEART, GUIDELINES["differential"])
    # 1.0 · 1 + 0.1 · 1 between guidelines, 0.3 · 1 within
    assert found.parts == {"correct": 1.0, "format": 1.0, "adherence": 1.0}
    assert (found.between, found.within, found.total) == (1.1, 0.3, pytest.approx(1.4))
    assert (found.gate, found.letter, found.right) == (None, "B", True)
    assert found.criteria == {"weighs_candidates": 1.0, "excludes_with_reason": 1.0, "reads_the_picture": 1.0}
    # wrong: form only; adherence is 0, not unknown
    wrong = rewards(WRONG, HEART, GUIDELINES["differential"])
    assert (wrong.total, wrong.within, wrong.right) == (pytest.approx(0.1), 0.0, False)
    assert wrong.parts == {"correct": 0.0, "format": 1.0, "adherence": 0.0}
    # neutral: no adherence term, not even zero
    neutral = rewards(RIGHT, HEART, GUIDELINES[NEUTRAL])
    assert (neutral.total, neutral.within, neutral.parts["adherence"]) == (1.1, None, None)
    assert neutral.criteria == {}
    unparsed = rewards("enlarged", HEART, GUIDELINES["differential"])
    assert (unparsed.total, unparsed.gate, unparsed.letter, unparsed.within) == (0.0, "unparsed", None, 0.0)


def test_a_reasoning_that_contradicts_its_letter_earns_nothing_and_is_not_right():
    lie = f"<think>{TRACES['differential']}</think><answer>A</answer>"
    for asked in (HEART, replace(HEART, answer="normal")):  # whether the letter is wrong or right
        found = Rewards(weighted())(lie, asked, GUIDELINES["differential"])
        assert (found.total, found.gate, found.right, found.letter) == (0.0, "contradiction", False, "A")


@pytest.mark.parametrize(
    ("n_tokens", "score"),
    # L_max 100, L_cache 20: free up to 80, then (80 - |y|) / 20
    [(0, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (101, -1.0), (500, -1.0)],
)
def test_overlong_by_hand(n_tokens, score):
    term = Overlong(Overlong.Config(weight=0.5, max_tokens=100, buffer=20))
    rewards = Rewards([*weighted(), term])
    for text in (RIGHT, WRONG, GATED):  # a penalty holds behind a gate too
        found = rewards(text, HEART, GUIDELINES[NEUTRAL], n_tokens=n_tokens)
        plain = Rewards(weighted())(text, HEART, GUIDELINES[NEUTRAL])
        assert found.parts["overlong"] == pytest.approx(score)
        assert found.total == pytest.approx(plain.total + 0.5 * score)


def test_what_was_cut_off_is_overlong():
    found = Rewards([*weighted(), Overlong()])("heart 62 of", HEART, GUIDELINES[NEUTRAL], n_tokens=3, truncated=True)
    assert found.parts["overlong"] == -1.0


@pytest.mark.parametrize("options", [{"max_tokens": 0}, {"buffer": 0}, {"buffer": 97}, {"weight": -1.0}])
def test_overlong_refuses_impossible_lengths(options):
    with pytest.raises(ValueError, match=next(iter(options)) + " must"):
        Overlong.Config(**options)


def test_a_term_of_one_s_own_is_one_class_with_one_method():
    rewards = Rewards([*weighted(), Short(Short.Config(weight=0.1))])
    assert (rewards.names, Short.within_guideline) == (("correct", "format", "adherence", "short"), False)
    assert rewards(RIGHT, HEART, GUIDELINES[NEUTRAL]).parts["short"] == 0.0
    found = rewards(WRONG, HEART, GUIDELINES[NEUTRAL])
    assert (found.parts["short"], found.total) == (1.0, pytest.approx(0.2))
    # behind a gate nothing above 0 is paid: the empty thinking is short, too
    assert rewards(GATED, HEART, GUIDELINES[NEUTRAL]).total == 0.0


def test_names_come_from_the_class():
    class NamesTheOrgan(Short):
        pass

    class KLTerm(Short):
        name: ClassVar = "kl"

    class KLPenalty(Short):
        pass

    assert (NamesTheOrgan.name, KLTerm.name, KLPenalty.name) == ("names_the_organ", "kl", "kl_penalty")
    assert (Correct.name, Format.name, Adherence.name, Overlong.name) == ("correct", "format", "adherence", "overlong")


def test_defaults():
    assert [term().config.weight for term in (Correct, Format, Adherence, Overlong)] == [1.0, 0.1, 0.2, 0.5]
    assert (Adherence.within_guideline, Adherence.only_if_right) == (True, True)
    Rewards([Correct(), Format(), Adherence(), Overlong()])  # the defaults go together


def test_scores_outside_their_range_are_named():
    class Loud(Short):
        def score(self, judged):
            return 2.0

    class Silent(Short):
        lowest: ClassVar = 0.5

        def score(self, judged):
            return None

    with pytest.raises(ValueError, match=r"loud: the score 2.0 is outside \[0, 1\]"):
        Rewards([*weighted(), Loud(Short.Config(0.1))])(RIGHT, HEART, GUIDELINES[NEUTRAL])
    with pytest.raises(ValueError, match=r"silent: got no score"):
        Rewards([*weighted(), Silent(Short.Config(0.1))])(RIGHT, HEART, GUIDELINES[NEUTRAL])


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([], "got no term"),
        ([Correct(), Correct()], "names repeat"),
        (weighted(0, 0, 0), "nothing can be earned"),
        ([Overlong()], "nothing can be earned"),
        (weighted(0, 0.1, 0.2), "up to 0.1 and a right one as little as 0.1 with the weights correct 0, format 0.1"),
        ([Format()], "wrong answer could outscore"),
        ([Adherence()], "wrong answer could outscore"),
        ([Correct(), Short()], "up to 1 and a right one as little as 1 with the weights correct 1, short 1"),
        ([Correct(), Overlong(Overlong.Config(weight=1.0))], "wrong answer could outscore"),
        (weighted(1e-20, 1e6, 0), "wrong answer could outscore"),  # lost in rounding beside the format reward
    ],
)
def test_combinations_that_break_the_promise_are_refused(terms, message):
    with pytest.raises(ValueError, match=message):
        Rewards(terms)


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_weights_are_finite_and_not_negative(weight):
    with pytest.raises(ValueError, match="weight must be at least 0"):
        Correct.Config(weight)


WORDS = st.sampled_from(
    "heart wide ratio 0.56 62 of 110 normal enlarged unlikely because therefore prior 50% posterior 90% up fits "
    "typical picture . , the is so answer not or likelihood 9 actually".split()
)
THINKING = st.one_of(
    st.lists(WORDS, max_size=40).map(" ".join), st.sampled_from(list(TRACES.values())), st.text(max_size=40)
)
BLOCKS = st.sampled_from(
    ["<think>{}</think><answer>{}</answer>", "<think>{}<answer>{}</answer>", "{} {}", "<answer>{1}</answer>{0}"]
)
WEIGHT = st.one_of(st.floats(0, 2), st.floats(0, 1e6), st.sampled_from([0.0, 1e-20, 0.1, 1.0]))


@dataclass(frozen=True)
class Written:
    text: str
    name: str
    n_tokens: int


WRITTEN = st.builds(
    Written,
    st.builds(lambda block, thinking, letter: block.format(thinking, letter), BLOCKS, THINKING, st.sampled_from("AB")),
    st.sampled_from([*NAMES, NEUTRAL]),
    st.integers(0, 200),
)
RIGHTS = st.builds(
    Written,
    st.sampled_from([HEART.trace(name) for name in NAMES]),
    st.sampled_from([*NAMES, NEUTRAL]),
    st.integers(0, 200),
)


@settings(max_examples=400, deadline=None)
@given(
    weights=st.tuples(WEIGHT, WEIGHT, WEIGHT),
    more=st.tuples(WEIGHT, WEIGHT),
    first=st.one_of(RIGHTS, WRITTEN),
    second=WRITTEN,
)
def test_no_allowed_combination_lets_a_wrong_answer_outscore_a_right_one(weights, more, first, second):
    try:
        rewards = Rewards([*weighted(*weights), Overlong(Overlong.Config(more[0])), Short(Short.Config(more[1]))])
    except ValueError:
        return
    one, two = (rewards(w.text, HEART, GUIDELINES[w.name], n_tokens=w.n_tokens) for w in (first, second))
    for found in (one, two):
        assert found.total == found.between + (found.within or 0.0)
        assert found.right == (found.gate is None and found.letter == HEART.letter)
        assert found.parts["adherence"] in (None, 0.0) or found.right
        if found.gate is not None:
            assert found.total <= 0
    if one.right and not two.right:
        assert one.total > two.total
    if two.right and not one.right:
        assert two.total > one.total


def test_findings_by_hand():
    # shared by all four traces and not in the prompt: "heart 62 of 110" and "ratio 0.56"
    known = reference_of(HEART, GUIDELINES["differential"])
    assert set(known.findings) == {
        Finding(frozenset(["heart"]), (62.0, 110.0), False),
        Finding(frozenset(["ratio"]), (0.56,), False),
    }
    assert {"chamber", "stretche", "load", 0.5} <= known.vocabulary
    assert not {"enlarged", "large", "film", "because", "answer"} & known.vocabulary


@pytest.mark.parametrize(
    ("text", "credit"),
    [
        ("heart 62 of 110, ratio 0.56.", 1.0),
        ("the heart is 63 wide of 108, giving a ratio of 0.58.", 1.0),  # within 5 % each
        ("ratio 0.56.", 0.5),  # one of two
        ("ratio 0.61.", 0.0),
        ("heart 62 of 110, ratio 0.70.", 0.25),  # one of two, and one of the two readings is wrong
        ("ratio 0.36, ratio 0.46, ratio 0.56.", 0.5 / 3),  # one of two, and one of three readings
        ("ratio 0.56, ratio above 0.50.", 0.5),  # a cut-off that the traces have is no misreading
        ("ratio not 0.56, no heart 62 of 110.", 0.0),
        ("normal is unlikely because the ratio is 0.56 and heart 62 of 110.", 0.0),  # not in a rejection
        ("ratio 0.36 0.41 0.46 0.51 0.56 0.61 heart 55 58 62 100 105 110.", 0.0),  # too many numbers for a reading
    ],
)
def test_grounding_by_hand(text, credit):
    known = reference_of(HEART, GUIDELINES["differential"])
    found = grounding(normal(text), mentions(normal(text), HEART.options), known, 2)
    assert found == pytest.approx(credit)


def test_a_single_trace_and_long_sentences_give_words():
    long = "the left lower zone is white with a curved upper edge and a lost angle on that side"
    known = reference((long, f"because fluid falls, {long}"), "what is seen?")
    assert Finding(frozenset(["curved"]), (), False) in known.findings
    assert Finding(frozenset(["fluid"]), (), False) not in known.findings  # in one of two
    alone = reference(("mid grey inside. heart 62 of 110.",), "what is seen?")
    assert alone.findings == (Finding(frozenset(["heart"]), (62.0, 110.0), False),)
    assert reference((), "what is seen?") is None
    assert reference(("what is seen.",), "what is seen?") is None


def test_without_worked_reasoning_findings_do_not_apply():
    bare = replace(HEART, reasoning={})
    found = Rewards(weighted())(HEART.trace("differential"), bare, GUIDELINES["differential"])
    assert found.criteria == {"weighs_candidates": 1.0, "excludes_with_reason": 1.0}
    assert found.parts["adherence"] == 1.0


@pytest.mark.parametrize(
    ("reason", "credit"),
    [
        ("the ratio is above 0.50", 1.0),  # a word of the traces
        ("it starts at 0.45", 1.0),  # a number of the size of what was measured
        ("the moon is made of cheese", 0.25),
        ("it does not fit", 0.25),
    ],
)
def test_reasons_are_about_the_picture(reason, credit):
    text = f"heart 62 of 110, ratio 0.56. normal is unlikely because {reason}. enlarged fits. the answer is enlarged."
    known = reference_of(HEART, GUIDELINES["differential"])
    found = adherence(text, HEART.options, "enlarged", GUIDELINES["differential"], known)
    assert found.criteria["excludes_with_reason"] == credit
    # candidates weigh 1, exclusion 2, and all findings are stated
    assert found.score == pytest.approx((1 + 2 * credit) / 3)


def test_the_share_of_findings_by_hand():
    # full form, no finding: 1 - 0.8 · (1 - 0) = 0.2; one of two findings: 1 - 0.8 · 0.5 = 0.6
    known = reference_of(HEART, GUIDELINES["differential"])
    form = "normal is unlikely because it needs at most 0.50. enlarged fits. the answer is enlarged."
    scores = [
        adherence(text, HEART.options, "enlarged", GUIDELINES["differential"], known).score
        for text in (form, f"ratio 0.56. {form}", f"ratio 0.56, heart 62 of 110. {form}")
    ]
    assert scores == pytest.approx([0.2, 0.6, 1.0])


@pytest.mark.parametrize(
    ("text", "credit"),
    [
        ("prior 50%. likelihood ratio 9, up. posterior 90%.", 1.0),  # odds 1 · 9, 90 %
        ("prior 20%. likelihood ratio 12. posterior 75%.", 1.0),  # odds 0.25 · 12 = 3, 75 %
        ("prior 20%. likelihood ratio 12. posterior 78%.", 1.0),  # 3 points are rounding
        ("prior 20%. likelihood ratio 12. posterior 95%.", 0.5),
        ("prior 33%, likelihood 90% against 10%, posterior 82%.", 1.0),  # odds 0.4925 · 9 = 4.43, 82 %
        ("prior 33%, likelihood 90% against 10%, posterior 20%.", 0.0),
        ("prior 50%. it raises the odds. posterior 70%.", 1.0),  # no ratio to hold it to
    ],
)
def test_a_posterior_follows_from_its_ratio(text, credit):
    found = adherence(f"{text} so the answer is enlarged.", HEART.options, "enlarged", GUIDELINES["bayesian"])
    assert found.criteria["moves_as_said"] == credit
