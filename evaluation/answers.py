"""Which option a completion chose: one strict reading for rewards and main scores, one lenient reading beside it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from evaluation.lenient import REGION, lenient_letter

LETTERS = "ABCDEFGHIJ"

Mode = Literal["strict", "lenient"]

StrictReason = Literal[
    "letter",  # read: the block holds a letter
    "letter_and_text",  # read: "B. text" or "B) text", and text is that option
    "option_text",  # read: the block holds exactly one option's text
    "no_think",  # no thinking tags at all
    "several_thinks",  # more than one thinking block, or one inside another
    "unclosed_think",  # the thinking never ends: cut off, or the tag was forgotten
    "answer_in_thinking",  # an answer tag, however spelled, before the thinking ends
    "no_answer",  # nothing that looks like an answer block after the thinking
    "several_answers",  # more than one answer block
    "malformed_tags",  # tags in another order or another spelling
    "text_outside_tags",  # words before the thinking, between the blocks or after the answer
    "letter_out_of_range",  # a letter that no option carries
    "letter_text_conflict",  # "B. text" where text is another option, or two readings that disagree
    "not_an_option",  # anything else in the block
]

# Bounded everywhere: unbounded runs would make a megabyte of "<<<<" or "<    " quadratic.
TAG = re.compile(r"<[\s/]{0,8}(think|answer)\b[^<>]{0,64}>?", re.IGNORECASE)
SPELLING = ("<think>", "</think>", "<answer>", "</answer>")
MAX_TAGS = 1000  # more than four are wrong anyway; enough to say in which way
LETTER_AND_TEXT = re.compile(r"([A-Ja-j])[.)] {1,8}(\S.*)", re.DOTALL)


@dataclass(frozen=True)
class Extraction:
    """What was read.

    Attributes:
        letter: the chosen option's letter, or None where nothing could be read without guessing.
        reason: how it was read or why not; `StrictReason`, or `evaluation.lenient.LenientReason` in lenient mode.
    """

    letter: str | None
    reason: str


def extract(text: str, options: Sequence[str], mode: Mode = "strict") -> Extraction:
    """Read the chosen option from a completion; never at random, never by similarity, in linear time.

    Strict: `<think>…</think>`, white space, `<answer>…</answer>`, white space, and in the block a letter, "letter.
    text" or "letter) text" where text is that option, or exactly one option's text. A lone letter is a letter even
    where another option's text is that letter (blood groups), since the protocol asks for letters.

    Lenient: what strict reads; otherwise ordered rules over the part after the last end of thinking (its last
    20 000 characters), which give up where two readings disagree (`evaluation.lenient`).

    Args:
        text: the completion as generated, without the prompt.
        options: 2 to 10 distinct texts in the order shown.
        mode: see above. Strict is what rewards and main scores use; lenient is only ever reported beside it.

    Returns:
        The letter and a reason code; letter None means unparsed.

    Raises:
        ValueError: the options are too few, too many or repeat, or the mode is unknown.

    Choice: lower-case letters are read, since inside the block they cannot be an article. Whether the thinking is
        empty is not asked here but by `lightning_modules.rewards.gates`.
    """
    if not 2 <= len(options) <= len(LETTERS) or len(set(options)) != len(options):
        raise ValueError(f"options must be 2 to {len(LETTERS)} distinct texts, got {tuple(options)!r}")
    if mode not in ("strict", "lenient"):
        raise ValueError(f"mode must be 'strict' or 'lenient', got {mode!r}")
    content, fault = strict_block(text)
    strict = Extraction(None, fault or "no_answer") if content is None else _read(content, options)
    if mode == "strict" or strict.letter is not None:
        return strict
    region = after_thinking(text)
    if region is None:
        return Extraction(None, "unclosed_think")
    return Extraction(*lenient_letter(region, options, LETTERS[: len(options)]))


def thinking_of(text: str) -> str:
    """The text between the first `<think>` and the next `</think>`, or its end; empty without thinking tags."""
    _, opened, rest = text.partition("<think>")
    return rest.partition("</think>")[0] if opened else ""


def strict_block(text: str) -> tuple[str | None, StrictReason | None]:
    """The content of the one answer block of a completion of the required form; else None and what is wrong with it."""
    tags = list(islice(TAG.finditer(text), MAX_TAGS))
    if tuple(tag.group() for tag in tags) != SPELLING:
        return None, _tag_fault([tag.group() for tag in tags])
    opening, closing, answer, end = tags
    outside = text[: opening.start()] + text[closing.end() : answer.start()] + text[end.end() :]
    thinking = text[opening.end() : closing.start()]
    # Full-width or otherwise disguised tags become visible under NFKC; a lenient reader would obey them.
    if any(mark in thinking for mark in "<＜﹤") and TAG.search(unicodedata.normalize("NFKC", thinking)):
        return None, "answer_in_thinking"
    if outside.strip():
        return None, "text_outside_tags"
    return text[answer.end() : end.start()].strip(), None


def after_thinking(text: str) -> str | None:
    """What a completion says after its thinking, at most its last 20 000 characters; None if the thinking never ends.

    A region that had to be cut begins with an ellipsis, so that its first words are not taken for a whole answer.
    """
    thinks = [tag for tag in TAG.finditer(text) if tag.group(1).lower() == "think"]
    ends = [tag.end() for tag in thinks if "/" in tag.group()]
    if thinks and not ends:
        return None
    region = text[ends[-1] if ends else 0 :]
    return region if len(region) <= REGION else "… " + region[-REGION:].partition(" ")[2]


def _tag_fault(tags: Sequence[str]) -> StrictReason:
    """Name what is wrong with a sequence of tags, as spelled in the completion, that is not the required one."""
    names = [("/" if "/" in tag else "") + ("think" if "think" in tag.lower() else "answer") for tag in tags]
    if "think" not in names and "/think" not in names:
        return "no_think"
    ends = names.index("/think") if "/think" in names else len(names)
    if "think" in names[:ends] and "answer" in names[names.index("think") : ends]:
        return "answer_in_thinking"
    if "/think" not in names:
        return "unclosed_think"
    if names.count("think") > 1 or names.count("/think") > 1:
        return "several_thinks"
    if "answer" not in names:
        return "no_answer"
    if names.count("answer") > 1:
        return "several_answers"
    return "malformed_tags"


def _read(content: str, options: Sequence[str]) -> Extraction:
    """Read the content of an answer block."""
    letters = LETTERS[: len(options)]
    if len(content) == 1 and content.isascii() and content.upper() in letters:  # "ı" has the upper case "I"
        return Extraction(content.upper(), "letter")
    by_text = letters[options.index(content)] if content in options else None
    match = LETTER_AND_TEXT.fullmatch(content)
    letter, rest = (match.group(1).upper(), match.group(2)) if match else ("", "")
    if letter and letter in letters and options[letters.index(letter)] == rest:
        agree = by_text in (None, letter)
        return Extraction(letter, "letter_and_text") if agree else Extraction(None, "letter_text_conflict")
    if by_text:
        return Extraction(by_text, "option_text")
    if rest in options:
        return Extraction(None, "letter_text_conflict")
    if len(content) == 1 and content.isascii() and content.isalpha():
        return Extraction(None, "letter_out_of_range")
    return Extraction(None, "not_an_option")
