# Reference: strings read by hand, word counts by hand; run with `pytest tests/evaluation/test_open_answers.py`.
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.open_answers import extract_open, extract_yes_no, normal_answer, overlap


def tagged(content):
    return f"<think>some thought</think><answer>{content}</answer>"


YES_NO = [
    # (completion, strict, lenient)
    (tagged("yes"), "yes", "yes"),
    (tagged("No"), "no", "no"),
    (tagged("No."), "not_an_option", "no"),
    (tagged("No, there is none"), "not_an_option", "no"),
    (tagged("A"), "not_an_option", "nothing"),
    ("Yes", "no_think", "yes"),
    ("NO!", "no_think", "no"),
    ("Yes, there is an abnormality", "no_think", "yes"),
    ("The answer is no.", "no_think", "no"),
    ("**Answer:** Yes", "no_think", "yes"),
    ("\\boxed{no}", "no_think", "no"),
    ("There is no abnormality", "no_think", "nothing"),
    ("normal", "no_think", "nothing"),
    ("Unknown", "no_think", "refusal"),
    ("I cannot tell", "no_think", "refusal"),
    ("abnormality", "no_think", "nothing"),
    ("A", "no_think", "nothing"),
    ("B", "no_think", "nothing"),
    ("Option B", "no_think", "nothing"),
    ("", "no_think", "nothing"),
    ("yes\nno", "no_think", "enumeration"),
    ("The answer is not yes but no", "no_think", "nothing"),
    ("<think>yes", "unclosed_think", "unclosed_think"),
    ("<think>yes</think>no", "no_answer", "no"),
]


@pytest.mark.parametrize(("text", "strict", "lenient"), YES_NO)
def test_yes_and_no(text, strict, lenient):
    for mode, expected in (("strict", strict), ("lenient", lenient)):
        read = extract_yes_no(text, mode)
        assert (read.text or read.reason) == expected


OPEN = [
    (tagged("Lung abscess"), "Lung abscess", "Lung abscess"),
    (tagged("the left lung."), "the left lung.", "the left lung."),
    (tagged(""), "no_answer", "nothing"),
    ("right lower lobe", "no_think", "right lower lobe"),
    ("right lower lobe.", "no_think", "right lower lobe"),
    ("The answer is the right lower lobe. It is dense.", "no_think", "the right lower lobe"),
    ("The answer is St. Jude valve", "no_think", "St. Jude valve"),
    ("The answer is the U.S. pattern. It is rare.", "no_think", "the U.S. pattern"),
    ("The answer is E. coli.", "no_think", "E. coli"),
    ("The answer is approx. 5 cm. It grew.", "no_think", "approx. 5 cm"),
    ("The answer is hepatitis B. The liver is large.", "no_think", "hepatitis B"),
    ("the answer is liver. it is dense", "no_think", "liver"),
    ("The film is dense.\nAnswer: 1.5 cm", "no_think", "1.5 cm"),
    ("The answer is left. The answer is right.", "no_think", "conflict"),
    ("<answer>left</answer> as I said", "no_think", "left"),
    ("<answer>left</answer><answer>Left.</answer>", "no_think", "left"),
    ("<answer>left</answer><answer>right</answer>", "no_think", "conflict"),
    ("\\boxed{pneumonia}", "no_think", "pneumonia"),
    ("I cannot tell from this image", "no_think", "refusal"),
    ("Is it pneumonia?", "no_think", "nothing"),
    (
        "A long text that says much about the film and the heart and the lungs but never what it is",
        "no_think",
        "nothing",
    ),
    ("one line\nanother line", "no_think", "nothing"),
    ("", "no_think", "nothing"),
    ("<think>The answer is left.", "unclosed_think", "unclosed_think"),
]


@pytest.mark.parametrize(("text", "strict", "lenient"), OPEN)
def test_short_answers(text, strict, lenient):
    for mode, expected in (("strict", strict), ("lenient", lenient)):
        read = extract_open(text, mode)
        assert (read.text or read.reason) == expected


def test_what_is_the_same_answer():
    same = ("The left lung.", "left lung", "LEFT  LUNG", "(left) lung", "ｌｅｆｔ lung", "a left lung")
    assert {normal_answer(text) for text in same} == {"left lung"}
    assert normal_answer("1.5 cm") != normal_answer("15 cm")
    assert len({normal_answer(text) for text in ("A", "the", "+", "-", "")}) == 5
    assert normal_answer("Crohn’s disease") == normal_answer("Crohn's disease")


@pytest.mark.parametrize(
    "different",
    [
        ("ER+", "ER-", "ER"),
        ("ER +", "ER -"),
        ("ER+/PR-", "ER-/PR+", "ER+/PR+"),
        ("ER+PR+", "ER-PR+"),
        ("CD20+", "CD20 -"),
        (">5 cm", "<5 cm", "5 cm", "≥ 5 cm"),
        ("-5", "5", "+5"),
        ("Hepatitis A", "hepatitis", "hepatitis B"),
        ("type A and B", "type B"),
        ("A+", "+", "A-", "B+", "O"),
        ("vitamin A deficiency", "vitamin deficiency"),
    ],
)
def test_opposite_findings_are_different_answers(different):
    assert len(set(map(normal_answer, different))) == len(different)


@pytest.mark.parametrize(
    "same",
    [
        ("T2-weighted", "T2 weighted"),
        ("COVID-19", "covid 19"),
        ("5-10 mm", "5 – 10 mm"),
        ("- left lung", "left lung"),
        ("Pneumonia - left", "pneumonia, left"),
        ("≥5", ">= 5"),
        ("−5", "-5"),
        ("a mass in a child", "mass in the child", "Mass in child"),
        ("Hepatitis A", "hepatitis a"),
        ("an ER+ tumour", "ER + tumour"),
    ],
)
def test_hyphens_and_articles_do_not_make_another_answer(same):
    assert len(set(map(normal_answer, same))) == 1


def test_overlap_by_hand():
    # "right lower lobe" against "right lobe": 2 words in common of 3 said and 2 wanted: p 2/3, r 1, f1 4/5
    assert overlap("the right lower lobe", "right lobe") == pytest.approx((False, 2 / 3, 1.0, 0.8))
    # "lung lung" has one word too many: p 1/2, r 1, f1 2/3
    assert overlap("lung lung", "lung") == pytest.approx((False, 0.5, 1.0, 2 / 3))
    assert overlap("Lung.", "lung") == (True, 1.0, 1.0, 1.0)
    assert overlap("", "lung") == (False, 0.0, 0.0, 0.0)
    assert overlap("heart", "lung") == (False, 0.0, 0.0, 0.0)


@settings(max_examples=200, deadline=None)
@given(
    answer=st.lists(st.sampled_from("left right lower lobe dense 12 mm aorta".split()), min_size=1, max_size=5),
    template=st.sampled_from(
        [
            "{}",
            "{}.",
            "The answer is {}.",
            "Long text.\nFinal answer: {}",
            "<answer>{}</answer>",
            "\\boxed{{{}}}",
            tagged("{}"),
        ]
    ),
)
def test_any_short_answer_in_any_template_comes_back(answer, template):
    text = " ".join(answer)
    assert normal_answer(extract_open(template.format(text), "lenient").text) == normal_answer(text)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=200))
def test_nothing_raises_and_strict_is_part_of_lenient(text):
    for full in (text, tagged(text), f"<think>{text}"):
        for extract in (extract_yes_no, extract_open):
            strict = extract(full)
            if strict.text is not None:
                assert extract(full, "lenient").text == strict.text


@pytest.mark.parametrize("piece", ["answer is ", "<answer>", "\\boxed{", "a", ". ", "yes no "])
def test_a_megabyte_is_read(piece):
    for extract in (extract_yes_no, extract_open):
        assert extract(piece * (1_000_000 // len(piece)), "lenient").text in (None, "is", "yes")
