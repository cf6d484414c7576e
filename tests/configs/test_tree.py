"""Reference: `yaml.safe_load`, and by hand what it would let pass. Run: pytest tests/configs/test_tree.py."""

import pytest
import yaml

from configs.tree import Branch, TreeReader, merge_trees, plain, read_overrides


def read(text: str):
    """Tree and the lines of what is wrong with a text."""
    problems = []
    return TreeReader("a.yaml", problems).read(text), list(map(str, problems))


def test_values_are_those_of_safe_load():
    text = """
base: &base {a: 1, b: [x, {y: 2.5}], c: null, d: 2001-01-01}
more: {<<: *base, a: 2, e: yes, f: "1e-6", g: !!str 3}
again: *base
block: |
  two
  lines
"""
    tree, problems = read(text)
    assert problems == []
    dates_are_texts = text.replace("2001-01-01", "'2001-01-01'")
    assert plain(tree) == yaml.safe_load(dates_are_texts)
    assert tree.children["more"].children["a"].place == "a.yaml:3"
    assert tree.children["more"].children["c"].place == "a.yaml:2"


@pytest.mark.parametrize("text", ["1e-6", "1E5", "-2e+3", ".5e1", "1.e2", "1.5e-3"])
def test_exponents_are_numbers(text):
    (tree, problems) = read(f"x: {text}")
    assert problems == []
    assert plain(tree) == {"x": float(text)}


@pytest.mark.parametrize("text", ["e5", "1e", "1e5x", "'1e5'", "abc1e5"])
def test_other_texts_stay_texts(text):
    assert plain(read(f"x: {text}")[0]) == {"x": text.strip("'")}


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("seed: 1\nseed: 2\n", "a.yaml:2: seed: given twice in one mapping, first on line 1; remove one"),
        ("a:\n  b: 1\n  b: 2\n", "a.yaml:3: a.b: given twice"),
        ("seed: [1\nmodel: 2\n", "a.yaml:2: not valid YAML"),
        ("a: 1\n\tb: 2\n", "a.yaml:2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "a.yaml:2: not valid YAML"),
        ("a: *nowhere\n", "a.yaml:1: not valid YAML"),
        ("seed: !!python/object/apply:os.getcwd []\n", "a.yaml:1: not valid YAML"),
        ("on: 1\n", "a.yaml:1: keys are texts, got on"),
        ("a: {1: 2}\n", "a.yaml:1: a: keys are texts, got 1"),
        ("? [a, b]\n: 1\n", "a.yaml:1: keys are texts"),
        ("a: &a [1, *a]\n", "a.yaml: "),
        ("a: &a {b: *a}\n", "a.yaml: "),
    ],
)
def test_what_safe_load_lets_pass_or_trips_over(text, start):
    _, problems = read(text)
    assert len(problems) == 1
    assert problems[0].startswith(start)


def test_aliases_of_aliases_do_not_fill_the_memory():
    # ten to the seventh values in seven lines
    lines = ["a: &a [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"{n}: &{n} [{','.join([f'*{p}'] * 10)}]" for p, n in zip("abcdef", "bcdefg", strict=True)]
    assert "more than 20000 values" in read("\n".join(lines))[1][0]


def test_the_later_argument_wins_and_mappings_merge():
    layer = read_overrides(["a.b=1", "a.c=[1, x]", "a.b=2", "d={e: 1}", "d.f=", "g=a=b"], problems := [])
    assert problems == []
    assert plain(layer) == {"a": {"b": 2, "c": [1, "x"]}, "d": {"e": 1, "f": None}, "g": "a=b"}


def test_merging_writes_to_neither_tree():
    below, above = read("a: {b: 1, c: 2}")[0], read("a: {c: 3}\nd: null")[0]
    before = plain(below), plain(above)
    assert plain(merge_trees(below, above)) == {"a": {"b": 1, "c": 3}, "d": None}
    assert (plain(below), plain(above)) == before
    assert isinstance(below, Branch)
