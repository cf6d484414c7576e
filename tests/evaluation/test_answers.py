# Reference: tables of strings read by hand, and properties; run with `pytest tests/evaluation/test_answers.py`.
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.answers import LETTERS, extract, thinking_of

LUNG = ("Tuberculosis", "Sarcoidosis", "Lung abscess", "Pneumothorax")
YES_NO = ("yes", "no")
HEART = ("normal", "enlarged")
SIDE = ("left", "right", "no curve")
BLOOD = ("B", "A", "AB", "O")
MOULD = ("fumigatus", "A. fumigatus", "B. dermatitidis", "Candida")
NESTED = ("pneumonia", "bacterial pneumonia", "viral pneumonia", "no pneumonia", "empyema")
GENES = ("ATM", "Atm")
TEN = tuple(f"{word} finding" for word in "one two three four five six seven eight nine ten".split())
NUMBERS = ("0.5 mm", "5 mm", "15 mm", "50 mm", "5", "50")


def tagged(content, thinking="some thought"):
    return f"<think>{thinking}</think><answer>{content}</answer>"


STRICT = [
    # (completion, options, letter, reason)
    (tagged("B"), LUNG, "B", "letter"),
    (tagged(" b\n"), LUNG, "B", "letter"),
    (tagged("B. Sarcoidosis"), LUNG, "B", "letter_and_text"),
    (tagged("c) Lung abscess"), LUNG, "C", "letter_and_text"),
    (tagged("Pneumothorax"), LUNG, "D", "option_text"),
    (f"\n {tagged('A')} \n", LUNG, "A", "letter"),
    ("<think></think>\n\n<answer>J</answer>", TEN, "J", "letter"),
    (tagged("yes"), YES_NO, "A", "option_text"),
    (tagged("B"), BLOOD, "B", "letter"),  # the protocol asks for a letter, though an option is called B
    (tagged("O"), BLOOD, "D", "option_text"),
    (tagged("A. fumigatus"), MOULD, None, "letter_text_conflict"),  # A with its text, or the text of B
    (tagged("B. dermatitidis"), MOULD, "C", "option_text"),
    (tagged("Atm"), GENES, "B", "option_text"),
    (tagged("atm"), GENES, None, "not_an_option"),
    (tagged("5 mm"), NUMBERS, "B", "option_text"),
    (tagged("pneumothorax"), LUNG, None, "not_an_option"),
    (tagged("Pneumothorax."), LUNG, None, "not_an_option"),
    (tagged("B. Lung abscess"), LUNG, None, "letter_text_conflict"),
    (tagged("E) Lung abscess"), LUNG, None, "letter_text_conflict"),
    (tagged("E"), LUNG, None, "letter_out_of_range"),
    (tagged("c"), HEART, None, "letter_out_of_range"),
    (tagged("(B)"), LUNG, None, "not_an_option"),
    (tagged("B."), LUNG, None, "not_an_option"),
    (tagged("**B**"), LUNG, None, "not_an_option"),
    (tagged("A or B"), LUNG, None, "not_an_option"),
    (tagged("AB"), LUNG, None, "not_an_option"),
    (tagged(""), LUNG, None, "not_an_option"),
    (tagged("ß"), LUNG, None, "not_an_option"),
    (tagged("Ｂ"), LUNG, None, "not_an_option"),
    ("", LUNG, None, "no_think"),
    ("B", LUNG, None, "no_think"),
    ("<answer>B</answer>", LUNG, None, "no_think"),
    ("<think>a thought", LUNG, None, "unclosed_think"),
    ("<think>a thought<answer>B</answer>", LUNG, None, "answer_in_thinking"),
    (tagged("A", "so <answer>B</answer> it is"), LUNG, None, "answer_in_thinking"),
    (tagged("A", "so <ANSWER>B</ANSWER>"), LUNG, None, "answer_in_thinking"),
    (tagged("A", "so < answer >B</ answer >"), LUNG, None, "answer_in_thinking"),
    (tagged("A", "so <answer id=1>B"), LUNG, None, "answer_in_thinking"),
    (tagged("A", "so ＜answer＞B"), LUNG, None, "answer_in_thinking"),
    (tagged("A", "again <think> more"), LUNG, None, "several_thinks"),
    (tagged("A") + tagged("B"), LUNG, None, "several_thinks"),
    ("<think>x</think>", LUNG, None, "no_answer"),
    ("<think>x</think> B", LUNG, None, "no_answer"),
    ("<think>x</think><answer>A</answer><answer>B</answer>", LUNG, None, "several_answers"),
    ("<think>x</think><answer>A</answer><answer>A</answer>", LUNG, None, "several_answers"),
    ("<think>x</think><answer>A", LUNG, None, "malformed_tags"),
    ("<think>x</think><Answer>A</Answer>", LUNG, None, "malformed_tags"),
    ("<think>x</think></answer>A<answer>", LUNG, None, "malformed_tags"),
    ("<answer>A</answer><think>x</think>", LUNG, None, "malformed_tags"),
    (tagged("A") + " because", LUNG, None, "text_outside_tags"),
    ("Sure. " + tagged("A"), LUNG, None, "text_outside_tags"),
    ("<think>x</think> it is <answer>A</answer>", LUNG, None, "text_outside_tags"),
]


@pytest.mark.parametrize(("text", "options", "letter", "reason"), STRICT)
def test_strict_table(text, options, letter, reason):
    read = extract(text, options)
    assert (read.letter, read.reason) == (letter, reason)


PUBLISHED = [
    # strings on which published harnesses were seen to fail
    ("The answer is cardiomegaly", LUNG, None),
    ("The correct answer is definitely Tuberculosis", LUNG, "A"),
    ("Not Tuberculosis", LUNG, None),
    ("Vitamin D", LUNG, None),
    ("Hepatitis B", LUNG, None),
    ("<think>maybe A</think><answer>B</answer>", LUNG, "B"),
    ("<answer>B</answer> A patient", LUNG, "B"),
    ("A chest CT would be best. Answer B", LUNG, "B"),
    ("A CT scan shows a mass, so the answer: C", LUNG, "C"),
    ("A 45-year-old man with fever. Therefore C", LUNG, "C"),
    ("I think the answer is: C", TEN, "C"),
    ("b", LUNG, "B"),
    ("(B)", LUNG, "B"),
    ("**B**", LUNG, "B"),
    ("The answer is B because of the nodes", LUNG, "B"),
    ("", LUNG, None),
    ("????", LUNG, None),
    ("I cannot tell", LUNG, None),
    ("The answer is not A but B", LUNG, "B"),
    ("Yes, there is an abnormality", YES_NO, "A"),
    ("normal", YES_NO, None),
    ("Unknown", YES_NO, None),
    ("<think></think><answer>B</answer>", LUNG, "B"),  # for the gates to refuse, not for the reader
    ("<think><answer>B</answer></think><answer>A</answer>", LUNG, "A"),  # lenient: what follows the thinking
]

LENIENT = [
    ("B.", LUNG, "B"),
    ("[B]", LUNG, "B"),
    ("Ｂ", LUNG, "B"),
    ("B) Sarcoidosis", LUNG, "B"),
    ("B - Sarcoidosis", LUNG, "B"),
    ("B: lung abscess", LUNG, None),
    ("sarcoidosis.", LUNG, "B"),
    ("lung  abscess", LUNG, "C"),
    ("lung abscesses", LUNG, None),
    ("E", LUNG, None),
    ("I", TEN, "I"),
    ("I", LUNG, None),
    ("The answer is I.", TEN, "I"),
    ("Answer: I cannot tell", TEN, None),
    ("I would go with D.", LUNG, "D"),
    ("Final answer: **C**", LUNG, "C"),
    ("\\boxed{B}", LUNG, "B"),
    ("\\boxed{\\text{B}}", LUNG, "B"),
    ("\\boxed{A} or \\boxed{B}", LUNG, None),
    ("<answer>The answer is D</answer>", LUNG, "D"),
    ("<answer>B", LUNG, "B"),
    ("<answer>A</answer><answer>B</answer>", LUNG, None),
    ("<answer>A</answer><answer>A.</answer>", LUNG, "A"),
    ("<think>The answer is B", LUNG, None),
    ("<think>Not A.</think>The answer is B", LUNG, "B"),
    ("<think>B</think>A<think>C</think>D", LUNG, "D"),
    ("The diagnosis is sarcoidosis.", LUNG, "B"),
    ("most likely diagnosis: Pneumothorax", LUNG, "D"),
    ("Tuberculosis is the correct answer", LUNG, "A"),
    ("B is correct", LUNG, "B"),
    ("Option B is not correct.", LUNG, None),
    ("I think B is right.", LUNG, "B"),
    ("Vitamin A is right for this.", LUNG, None),
    ("the correct option is (d)", LUNG, "D"),
    ("The answer is A or B", LUNG, None),
    ("The answer is A/B", LUNG, None),
    ("The answer is A and C", LUNG, None),
    ("The answer is B, not A.", LUNG, "B"),
    ("The answer is B rather than A.", LUNG, "B"),
    ("The answer is A. The answer is B.", LUNG, None),
    ("The answer is A. Wait, no, the answer is B.", LUNG, "B"),
    ("The answer is A. Final answer: B.", LUNG, "B"),
    ("The answer isn't B", LUNG, None),
    ("The answer is never B", LUNG, None),
    ("I don't think the answer is B", LUNG, None),
    ("I doubt that the answer is B", LUNG, None),
    ("If the answer is B the patient needs steroids", LUNG, None),
    ("Is the answer B?", LUNG, None),
    ("Is it sarcoidosis?", LUNG, None),
    ("The answer is a lung abscess.", LUNG, "C"),
    ("The answer is A lung abscess.", LUNG, None),
    ("The answer is a mass", LUNG, None),
    ("The answer is B) Sarcoidosis.", LUNG, "B"),
    ("The answer is B) Lung abscess", LUNG, None),
    ("The answer is A. fumigatus", LUNG, None),
    ("The answer is C. difficile", LUNG, None),
    ("The answer is B cells", LUNG, None),
    ("The answer is D-dimer", LUNG, None),
    ("The answer is B12", LUNG, None),
    ("Answer: A) Tuberculosis B) Sarcoidosis", LUNG, None),
    ("A, B and C are wrong", LUNG, None),
    ("None of the above", LUNG, None),
    ("The image cannot be assessed; tuberculosis.", LUNG, None),
    ("Some reasoning.\nB", LUNG, "B"),
    ("B\nSome reasoning.", LUNG, "B"),
    ("B\nor\nC", LUNG, None),
    ("It is Tuberculosis, not Sarcoidosis.", LUNG, "A"),
    ("Tuberculosis is unlikely; Sarcoidosis.", LUNG, "B"),
    ("Tuberculosis or Sarcoidosis", LUNG, None),
    ("No tuberculosis, no sarcoidosis.", LUNG, None),
    ("latent tuberculosis", LUNG, None),
    ("The answer is sarcoidosis-like", LUNG, None),
    ("This suggests bacterial pneumonia.", NESTED, "B"),
    ("This suggests pneumonia.", NESTED, "A"),
    ("The answer is no pneumonia.", NESTED, "D"),
    ("E. empyema", NESTED, "E"),
    ("No, the heart is of ordinary size", YES_NO, "B"),
    ("There is no abnormality", YES_NO, None),
    ("Nothing abnormal, noted.", YES_NO, None),
    ("The answer is no.", YES_NO, "B"),
    ("abnormal", HEART, None),
    ("not normal", HEART, None),
    ("The answer is normal saline", HEART, None),
    ("The answer is right.", SIDE, "B"),
    ("so the answer is no curve.", SIDE, "C"),
    ("The answer is left lower lobe", SIDE, None),
    ("AB", BLOOD, "C"),
    ("The answer is 5 mm.", NUMBERS, "B"),
    ("The answer is 0.5 mm", NUMBERS, "A"),
    ("The answer is 5.", NUMBERS, "E"),
    ("The answer is 55", NUMBERS, None),
    ("so the answer is: J", TEN, "J"),
    ("the answer is seven finding.", TEN, "G"),
    ("K", TEN, None),
]


@pytest.mark.parametrize(("text", "options", "letter"), PUBLISHED + LENIENT)
def test_lenient_table(text, options, letter):
    assert extract(text, options, "lenient").letter == letter


def test_the_tables_are_large_and_cover_two_to_ten_options():
    assert len(STRICT) + len(LENIENT) >= 80
    assert {len(options) for _, options, *_ in [*STRICT, *LENIENT]} >= {2, 3, 4, 5, 6, 10}


TEMPLATES = [
    "{letter}",
    "({letter})",
    "[{letter}]",
    "{letter}.",
    "{letter}) {text}",
    "{letter}. {text}",
    "{letter}: {text}",
    "({letter}) {text}",
    "**{letter}**",
    "**{letter}. {text}**",
    "Answer: {letter}",
    "Answer {letter}",
    "answer is {letter}",
    "The answer is {letter}.",
    "The answer is ({letter}).",
    "The answer is **{letter}**.",
    "The answer is option {letter}.",
    "The answer is {letter}) {text}.",
    "The answer is {letter} because it fits.",
    "The correct answer is {letter}",
    "The best option is {letter}.",
    "The correct choice: {letter}",
    "Final answer: {letter}",
    "A scan was done. Therefore, the answer is {letter}.",
    "Therefore {letter}.",
    "Thus, {letter}.",
    "So the answer should be {letter}.",
    "I choose {letter}.",
    "I would go with {letter}.",
    "Option {letter} is correct.",
    "{letter} is correct.",
    "I believe {letter} is the best answer.",
    "\\boxed{{{letter}}}",
    "<answer>{letter}</answer>",
    "<answer> {letter}. {text} </answer>",
    "<think>hm</think><answer>{letter}</answer>",
    "<think>hm</think>\nThe answer is {letter}.",
    "Long reasoning here.\n\n{letter}",
    "{text}",
    "{text}.",
    "The answer is {text}.",
    "The most likely diagnosis is {text}.",
]
WORDS = st.lists(
    st.sampled_from("kidney spleen oedema fracture cyst nodule torsion lymphoma".split()), min_size=2, max_size=3
)
OPTIONS = st.lists(WORDS.map(" ".join), min_size=2, max_size=10, unique=True)


@settings(max_examples=200, deadline=None)
@given(options=OPTIONS, choice=st.integers(0, 9), template=st.sampled_from(TEMPLATES))
def test_any_letter_in_any_template_comes_back(options, choice, template):
    choice %= len(options)
    text = template.format(letter=LETTERS[choice], text=options[choice])
    assert extract(text, options, "lenient").letter == LETTERS[choice]


@settings(max_examples=100, deadline=None)
@given(options=OPTIONS, data=st.data(), template=st.sampled_from([t for t in TEMPLATES if "{letter}" not in t]))
def test_shuffling_the_options_permutes_the_letter(options, data, template):
    shuffled = data.draw(st.permutations(options))
    text = template.format(text=options[0])
    for mode in ("strict", "lenient"):
        first = extract(tagged(options[0]) if mode == "strict" else text, options, mode).letter
        second = extract(tagged(options[0]) if mode == "strict" else text, shuffled, mode).letter
        assert options[LETTERS.index(first)] == shuffled[LETTERS.index(second)]


@settings(max_examples=200, deadline=None)
@given(
    words=st.lists(
        st.sampled_from("the film shows clear lungs and one wide heart today it was taken".split()), max_size=30
    )
)
def test_text_without_an_answer_is_unparsed(words):
    text = " ".join(words)
    for mode in ("strict", "lenient"):
        assert extract(text, LUNG, mode).letter is None


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="ABab ().,\n<>/thinkanswer", max_size=60), options=OPTIONS)
def test_lenient_reads_at_least_what_strict_reads_and_nothing_raises(text, options):
    for full in (text, tagged(text), tagged("A", text)):
        strict = extract(full, options)
        if strict.letter is not None:
            assert extract(full, options, "lenient").letter == strict.letter
        assert extract(full, options, "lenient").letter in {None, *LETTERS[: len(options)]}


BOMBS = (
    "<|< |<think>|</think>|<answer>|<answer |the answer is |not A or |(|\\boxed{| |\n|Tuberculosis is correct |ﷺ".split(
        "|"
    )
)


@pytest.mark.parametrize("piece", BOMBS)
def test_a_megabyte_is_read_in_linear_time(piece):
    bomb = piece * (1_000_000 // len(piece))
    for text in (bomb, tagged("A", bomb), tagged(bomb)):
        begin = time.process_time()
        extract(text, LUNG, "lenient")  # reads strictly first
        assert time.process_time() - begin < 4


@pytest.mark.parametrize("options", [("one",), ("x", "x"), tuple("abcdefghijk")])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match="2 to 10 distinct"):
        extract("A", options)


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'strict' or 'lenient'"):
        extract("A", LUNG, "fuzzy")


def test_thinking_is_cut_out():
    assert thinking_of(tagged("A", "two words")) == "two words"
    assert thinking_of("<think>cut off") == "cut off"
    assert thinking_of("A") == ""
