"""Replies of judges, good and bad, drawn from a seeded generator."""

import json
import random

from judging.cases import DIMENSIONS

VALUES = (
    "A",
    "B",
    "a",
    "b",
    " A ",
    "B.",
    "A|B",
    "Assistant B",
    "both",
    "tie",
    "",
    None,
    1,
    True,
    ["A"],
    {"v": "A"},
    "C",
)
WORDS = (
    *("A", "B", "a", "b", "[[A]]", "[[b]]", "[[C]]", "[A]", "answer", "better", "is", "both", "Assistant A", "plan B,"),
    *("a close call", "vitamin B12", "it's", "B-mode", "A/B", "é", "ａ", "ſ", "{", "}", '"', "\\", "```json", "```"),
    *("<think>", "</think>", "\n", ":", "overall: B", '"overall"', "accuracy:A", "OVERALL : b", "Reſponsiveness: A"),
    *("[The Start of Assistant A's Answer]", "NaN", "null", "\u2028", "\u00a0", "A\u0301", "_A_", "A1", "(B)", "'A'"),
)


def letters(draw: random.Random) -> dict:
    """An object with mostly sound values."""
    sound = draw.choice((1.0, 0.97, 0.6))
    held = {name: draw.choice("AB") if draw.random() < sound else draw.choice(VALUES) for name in DIMENSIONS}
    for name in [name for name in DIMENSIONS if draw.random() < 0.03]:
        del held[name]
    if draw.random() < 0.6:
        held["reason"] = draw.choice(("Short.", "A is a better answer {see above}.", 'It says "B".', "[[B]]", ["x"]))
    return held


def as_text(held: dict, draw: random.Random) -> str:
    """The object in JSON, nearly JSON, or lines."""
    form = draw.randrange(7)
    if form < 3:
        return json.dumps(held, indent=draw.choice((None, 2)), ensure_ascii=draw.random() < 0.5)
    if form == 3:
        return str(held)  # single quotes
    sign = draw.choice((":", " : ", ":\n", " - ", "="))
    quote = draw.choice(('"', "", "'", "**"))
    lines = [
        f"{quote}{draw.choice((name, name.title(), name.upper()))}{quote}{sign}{value}" for name, value in held.items()
    ]
    return draw.choice((", ", "\n", "; ")).join(lines)


def words(draw: random.Random, most: int = 8) -> str:
    """Words in no order."""
    return draw.choice((" ", "", "\n")).join(draw.choice(WORDS) for _ in range(draw.randrange(most)))


def damaged(text: str, draw: random.Random) -> str:
    """The text with a few characters lost, doubled or replaced."""
    for _ in range(draw.choice((0, 0, 0, 1, 2, 5))):
        if text:
            place = draw.randrange(len(text))
            text = text[:place] + draw.choice(("", text[place] * 2, draw.choice('{}"[]:,AaBb \n'))) + text[place + 1 :]
    return text[: draw.randrange(len(text) + 1)] if draw.random() < 0.08 else text


def reply(draw: random.Random) -> str:
    """One reply."""
    kind = draw.randrange(10)
    if kind < 2:
        return damaged(words(draw), draw)
    if kind == 2:
        return draw.choice(
            (" A\n", '"B"', "b", "[[A]]", "Answer: A", "a", "", "{}", "[]", '{"accuracy": ' * 3000, "1" * 5000)
        )
    body = as_text(letters(draw), draw)
    if kind == 3:
        body += words(draw, 3) + as_text(letters(draw), draw)
    if kind < 6:
        body = f"{words(draw, 4)}{body}{words(draw, 4)}"
    return damaged(body, draw)
