"""Reference: `str.isprintable`, over texts that hypothesis makes. Run: pytest tests/guards/test_printable.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guards.printable import printable, shown


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=400), st.integers(3, 300))
def test_whatever_is_printed_is_one_short_line_that_a_terminal_does_not_obey(text, limit):
    line = printable(text, limit)
    assert line.isprintable()
    assert len(line) <= limit
    line.encode("utf-8")  # no half of a surrogate pair


@pytest.mark.parametrize("text", ["", "a b", "λ = 1.1", "胸片", "naïve 'quotes' \"too\"", "C:\\films"])
def test_what_a_terminal_shows_as_it_is_stays_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\r\nb\x9b2J", "a\\r\\nb\\x9b2J"),
        ("\u202egnp.exe", "\\u202egnp.exe"),  # the picture name that reads backwards
        ("\udcff", "\\udcff"),  # a byte of a file name that is no UTF-8
    ],
)
def test_what_acts_is_written_out(text, escaped):
    assert printable(text) == escaped


LARGE = {
    "number": 10**5000,
    "text": "x" * 10**6,
    "mapping": {f"k{i}": [i] * 99 for i in range(10**4)},
    "list": [[[[[1]]]]],
}


@pytest.mark.parametrize("name", LARGE)
def test_values_are_short(name):
    assert len(shown(LARGE[name])) <= 80
