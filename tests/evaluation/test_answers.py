# Reference: `evaluation/strings.yaml`, read by hand, and properties; run `pytest tests/evaluation/test_answers.py`.
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.answers import LETTERS, Extraction, extract, thinking_of
from evaluation.readings import TABLE as TABLE_FILE
from evaluation.thinking import REGION, after_thinking

GROUPS = yaml.safe_load(TABLE_FILE.read_text("utf-8"))
TABLE = [
    (row[0], tuple(group["options"]), row[1] if len(row) == 3 else "no_think", row[-1])
    for group in GROUPS
    for row in group["rows"]
]
LUNG = ("Tuberculosis", "Sarcoidosis", "Lung abscess", "Pneumothorax")


def tagged(content, thinking="some thought"):
    return f"<think>{thinking}</think><answer>{content}</answer>"


def shown(read):
    """What a table row holds: the letter, or why there is none."""
    return read.letter or read.reason


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: ", ".join(group["options"])[:40])
def test_adversarial_table(group):
    options = tuple(group["options"])
    rows = [row for row in TABLE if row[1] == options]
    found = [(t, options, shown(extract(t, options)), shown(extract(t, options, "lenient"))) for t, *_ in rows]
    assert found == rows


def test_the_table_is_large_and_covers_two_to_ten_options():
    assert len(TABLE) >= 700
    assert len({(text, options) for text, options, *_ in TABLE}) == len(TABLE)
    assert {len(options) for _, options, *_ in TABLE} == set(range(2, 11))
    codes = {code for _, _, *both in TABLE for code in both if len(code) > 1}
    assert codes == {
        *("no_think", "several_thinks", "unclosed_think", "answer_in_thinking", "no_answer", "several_answers"),
        *("malformed_tags", "text_outside_tags", "letter_out_of_range", "letter_text_conflict", "not_an_option"),
        *("conflict", "several", "negated", "refusal", "enumeration", "nothing"),
    }


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        (tagged("B"), "strict", "letter"),
        (tagged("B. Sarcoidosis"), "strict", "letter_and_text"),
        (tagged("Sarcoidosis"), "strict", "option_text"),
        (tagged("B"), "lenient", "letter"),
        (tagged("(B)"), "strict", "letter"),
        (tagged("B: sarcoidosis."), "strict", "letter_and_text"),
        (tagged("Option B"), "lenient", "answer_tag"),
        ("\\boxed{B}", "lenient", "boxed"),
        ("(B)", "lenient", "whole"),
        ("Some words.\nB", "lenient", "line"),
        ("The answer is B.", "lenient", "statement"),
        ("This suggests sarcoidosis.", "lenient", "mention"),
    ],
)
def test_how_a_letter_was_read(text, mode, reason):
    assert extract(text, LUNG, mode) == Extraction("B", reason)


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
    "Option {letter}",
    "{text} ({letter})",
    "The answer is {text} ({letter}).",
    "Answer: {letter}\nExplanation: the others do not fit.",
    "### Answer\n{letter}",
    '{{"answer": "{letter}"}}',
    "The answer is {letter}: it fits.",
    "{letter} is the most likely diagnosis.",
]
NAMES = st.sampled_from(
    "kidney|spleen|oedema|cyst|torsion|bacterial pneumonia|pneumonia|T2 (muscle)|5 mm|0.5 mm|15 mm|grade 3|HER2+|"
    "p < 0.05|β-thalassaemia|Ménière's disease|vitamin D|hepatitis B|x-ray|left|right|normal|enlarged|yes|none|"
    "Radial head ORIF (plate)|all of the above|no pneumonia|CT|not seen|1,25-dihydroxy".split("|")
)
OPTIONS = st.lists(NAMES, min_size=2, max_size=10, unique_by=str.casefold)
PLAIN = st.lists(
    st.lists(
        st.sampled_from("kidney spleen oedema fracture cyst nodule torsion lymphoma".split()), min_size=2, max_size=3
    ).map(" ".join),
    min_size=2,
    max_size=10,
    unique=True,
)


@settings(max_examples=400, deadline=None)
@given(options=PLAIN, choice=st.integers(0, 9), template=st.sampled_from(TEMPLATES))
def test_any_letter_in_any_template_comes_back(options, choice, template):
    choice %= len(options)
    text = template.format(letter=LETTERS[choice], text=options[choice])
    assert extract(text, options, "lenient").letter == LETTERS[choice]


@settings(max_examples=400, deadline=None)
@given(options=OPTIONS, choice=st.integers(0, 9), template=st.sampled_from([t for t in TEMPLATES if "{text}" not in t]))
def test_any_letter_comes_back_whatever_the_options_are_called(options, choice, template):
    choice %= len(options)
    text = template.format(letter=LETTERS[choice])
    assert extract(text, options, "lenient").letter == LETTERS[choice]


@settings(max_examples=300, deadline=None)
@given(options=OPTIONS, choice=st.integers(0, 9), template=st.sampled_from(TEMPLATES))
def test_no_template_is_read_as_another_letter(options, choice, template):
    choice %= len(options)
    text = template.format(letter=LETTERS[choice], text=options[choice])
    assert extract(text, options, "lenient").letter in (LETTERS[choice], None)


@settings(max_examples=200, deadline=None)
@given(options=OPTIONS, data=st.data(), template=st.sampled_from([t for t in TEMPLATES if "{letter}" not in t]))
def test_shuffling_the_options_permutes_the_letter(options, data, template):
    shuffled = data.draw(st.permutations(options))
    for text, mode in ((tagged(options[0]), "strict"), (template.format(text=options[0]), "lenient")):
        chosen = [
            read.letter and order[LETTERS.index(read.letter)]
            for order in (options, shuffled)
            for read in [extract(text, order, mode)]
        ]
        assert chosen[0] == chosen[1]
        assert chosen[0] == options[0] or mode == "lenient"


@settings(max_examples=300, deadline=None)
@given(
    words=st.lists(
        st.sampled_from(
            "the film shows clear lungs and one wide heart today it was taken so therefore answer is not or because "
            "Grade Type cells T2 12 mm ( ) , : Figure E K Z".split()
        ),
        max_size=30,
    )
)
def test_text_without_an_answer_is_unparsed(words):
    for mode in ("strict", "lenient"):
        assert extract(" ".join(words), LUNG, mode).letter is None


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=80) | st.text(alphabet="ABab ().,\n<>/thinkanswer", max_size=60), options=OPTIONS)
def test_lenient_reads_at_least_what_strict_reads_and_nothing_raises(text, options):
    for full in (text, tagged(text), tagged("A", text)):
        strict = extract(full, options)
        if strict.letter is not None:
            assert extract(full, options, "lenient").letter == strict.letter
        assert extract(full, options, "lenient").letter in {None, *LETTERS[: len(options)]}


BOMBS = (
    "<|< |<think>|</think>|<answer>|<answer |the answer is |not A or |(|\\boxed{| |\n|Tuberculosis is correct |ﷺ|"
    "the answer is A |A or |Tuberculosis, |cannot be |)|__|is correct".split("|")
)


@pytest.mark.parametrize("piece", BOMBS)
def test_a_megabyte_is_read(piece):
    # with quadratic work each of these would take hours; what is read does not change with the length of the filling
    filling = piece * (1_000_000 // len(piece))
    small = piece * (100_000 // len(piece))
    for make in (lambda bomb: bomb, lambda bomb: tagged("A", bomb), tagged):
        for mode in ("strict", "lenient"):
            assert extract(make(filling), LUNG, mode) == extract(make(small), LUNG, mode)


def test_only_the_end_of_a_long_text_is_read():
    for words in ("filling ", "filling\n"):
        long = "The answer is A. " + words * REGION + ". "
        assert extract(long + "The answer is B.", LUNG, "lenient").letter == "B"
        assert len(after_thinking(long)) <= REGION + 2


def test_a_cut_does_not_make_an_answer():
    # the cut falls right before "B": it must not pass for a whole line
    text = "never " * 100 + "not\u2003B\n" + "x " * (REGION // 2 - 2) + "\nend of it"
    for shift in range(12):
        assert extract(text[: len(text) - shift], LUNG, "lenient").letter is None


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
