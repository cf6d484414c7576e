# Reference: the specialties' own rules, and the definition of each flaw.
# Run: pytest tests/datamodules/test_phantom_pairs.py
import random
import re
from collections import Counter, defaultdict
from functools import cache

import pytest

from datamodules.batch import BadExampleError, Example, image_key, load_image
from datamodules.graded import DIMENSIONS, RIGHT, Graded, graded
from datamodules.hashes import row_bytes
from datamodules.phantoms.base import phantom_classes
from datamodules.phantoms.flaws import CARE, FLAWS, PADDING, written
from datamodules.phantoms.pairs import PhantomPairs

SAFE, UNSAFE = zip(*CARE, strict=True)


@cache
def pairs(seed=0):
    return PhantomPairs(PhantomPairs.Config(n_patients=60, data_seed=seed)).splits


def everything():
    return [example for split in pairs().values() for example in split]


def concluded(text):
    """What an answer names as the answer."""
    found = re.search(r"so the answer is (.+?)\.", text)
    return found.group(1) if found else text.removesuffix(".")


@pytest.mark.parametrize("specialty", phantom_classes(), ids=lambda one: one.PREFIX)
@pytest.mark.parametrize("flaw", FLAWS)
def test_an_answer_has_its_flaw_and_no_other(specialty, flaw):
    for seed in range(12):
        rng = random.Random(f"{specialty.PREFIX} {seed}")
        case = specialty.sample(rng, 0.3)
        asked = specialty.questions(case, rng)
        own = {question.kind: question for question in asked}
        for kind, question in own.items():
            one = written(specialty, case, kind, flaw, rng)
            others = [other for name, other in own.items() if name != kind]
            said = concluded(one.text)
            assert (said != question.answer) == (flaw in ("finding", "rule") or (flaw == "irrelevant"))
            assert (question.reading in one.text) == (
                flaw in ("none", "rule", "padded", "unsafe")
                or (flaw == "irrelevant" and any(other.reading == question.reading for other in others))
                or (flaw == "finding" and question.reading in one.text)
            )
            if flaw == "irrelevant":
                assert said in {other.answer for other in others}
            elif flaw != "bare":
                assert said in specialty.PREVALENCE[kind]
            assert any(care in one.text for care in UNSAFE) == (flaw == "unsafe")
            assert any(care in one.text for care in SAFE) == (flaw not in ("unsafe", "bare"))
            assert sum(filler in one.text for filler in PADDING) == (3 if flaw == "padded" else 0)


def test_grades_follow_from_the_flaws_by_hand():
    rng = random.Random(0)
    specialty = phantom_classes()[0]
    case = specialty.sample(rng, 0.3)
    kind = next(iter(specialty.PREVALENCE))
    #             accuracy relevance comprehensiveness responsiveness overall right
    by_hand = {
        "none": (1, 2, 1, 2, 4, 1),
        "finding": (0, 2, 1, 2, 1, 0),
        "rule": (0, 2, 1, 2, 1, 0),
        "irrelevant": (1, 0, 0, 0, 2, 0),
        "padded": (1, 1, 1, 1, 3, 1),
        "bare": (1, 2, 0, 2, 3, 1),
        "unsafe": (1, 2, 1, 0, 0, 1),
    }
    names = ("accuracy", "relevance", "comprehensiveness", "responsiveness", "overall", RIGHT)
    for flaw, expected in by_hand.items():
        styles = {}
        for _ in range(30):
            one = written(specialty, case, kind, flaw, rng)
            assert tuple(one.grades[name] for name in names) == expected, flaw
            styles[one.weighs] = one
            assert one.grades["creativity"] == (one.weighs and flaw != "irrelevant")
        assert set(styles) == ({False} if flaw == "bare" else {True, False})
        if flaw != "bare":  # only the one that weighs names an alternative and turns it down
            turned_down = [any(word in styles[w].text for word in ("unlikely", "excluded")) for w in (True, False)]
            assert turned_down == [True, False]


def test_pairs_share_picture_and_question_and_their_patients_are_the_specialties_own():
    for specialty in phantom_classes():
        own = specialty(specialty.Config(n_patients=60))
        of = {e.question_id: (split, e) for split, held in own.splits.items() for e in held}
        for split, held in pairs().items():
            for example in held:
                if not example.patient_id.startswith(f"{specialty.PREFIX}-"):
                    continue
                there, same = of[example.question_id.rpartition("-")[0]]
                assert (there, same.question, same.answer) == (split, example.question, example.answer)
                assert sorted(same.options) == sorted(example.options)
        example = next(e for e in pairs()["test"] if e.patient_id.startswith(f"{specialty.PREFIX}-"))
        same = of[example.question_id.rpartition("-")[0]][1]
        assert image_key(load_image(example.images[0])) == image_key(load_image(same.images[0]))


def test_every_dimension_is_decided_either_way_and_no_place_or_length_decides_it():
    winners, longer = defaultdict(Counter), Counter()
    for example in everything():
        for name in (*DIMENSIONS, RIGHT):
            winner = example.winner(name)
            winners[name][winner] += 1
            if winner is not None:
                longer[name == "overall", len(example.answers[winner]) > len(example.answers[1 - winner])] += 1
    n = len(everything())
    assert n == 4 * 60 * 2 * 2
    for name, counts in winners.items():
        assert min(counts[0], counts[1]) > 0.17 * n, name
        assert abs(counts[0] - counts[1]) < 4 * (counts[0] + counts[1]) ** 0.5, name
    assert winners["overall"][None] < 0.15 * n
    right = longer[True, True] / (longer[True, True] + longer[True, False])
    assert 0.4 < right < 0.6  # of what counts in all, the longer answer knows little
    assert len({frozenset(e.tags["flaws"].split(" / ")) for e in everything()}) == 21


def test_the_set_is_made_alike_every_time_and_counts_in_hashes():
    again = PhantomPairs(PhantomPairs.Config(n_patients=60)).splits
    for split, held in pairs().items():
        assert [(e.answers, dict(e.grades)) for e in held] == [(e.answers, dict(e.grades)) for e in again[split]]
    one = pairs()["train"][0]
    assert one.swapped.swapped == one
    assert row_bytes(one) != row_bytes(one.swapped)
    assert one.winner("overall") == (None if one.winner("overall") is None else 1 - one.swapped.winner("overall"))
    plain = Example(one.patient_id, (), one.question, one.options, one.answer, one.question_id)
    assert row_bytes(plain) != row_bytes(one)
    full = {e.answers for e in pairs()["train"] if "bare" not in e.tags["flaws"]}
    assert not {e.answers for e in pairs(1)["train"]} & full


def test_what_is_not_a_pair_is_refused():
    one = pairs()["train"][0]
    three = Graded("p", (), "what?", (), "x", "q", answers=("a", "b", "c"), grades={"overall": (1.0, 2.0, 3.0)})
    with pytest.raises(BadExampleError, match="'q': has 3 answers, a pair has two"):
        three.winner("overall")
    assert graded([one, three], ("overall",)) == (one, three)
    assert one.winner("tact") is None
