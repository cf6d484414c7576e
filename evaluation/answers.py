"""Which option a completion chose: one strict reading for rewards and main scores, one lenient reading beside it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from evaluation.lenient import lenient_choice
from evaluation.thinking import after_thinking

LETTERS = "ABCDEFGHIJ"
VERSION = "6"
"""Changes with what any reading gives and with the meaning of any score, so that old and new ones are told apart."""

Mode = Literal["strict", "lenient"]

StrictReason = Literal[
    "letter",  # read: the block holds a letter, perhaps dressed: "B.", "(B)", "**B**", "\\boxed{B}"
    "letter_and_text",  # read: "B. text", "B) text" or "B: text", and text is that option
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
DRESS = re.compile(r"\\(?:boxed|fbox|text|textbf|textit|mathrm|mathbf)[ ]?(?=\{)|\\[()\[\]]|[*_`$]")
LETTER_AND_TEXT = re.compile(r"(?P<letter>[A-Ja-j])[.):]{1,2} {1,8}(?P<text>\S.*)", re.DOTALL)


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
    r"""Read the chosen option from a completion; never at random, never by similarity, in linear time.

    Strict: `<think>…</think>`, white space, `<answer>…</answer>`, white space, and in the block a letter, a letter and
    its option's text, or exactly one option's text. Stops, brackets, quotes, Markdown and LaTeX's box around a letter,
    or a letter and text, change nothing: `B.`, `(B)`, `**B**`, `\boxed{B}`, `B: text`. A lone letter is a letter even
    where another option's text is that letter (blood groups), since the protocol asks for letters.

    Lenient: what strict reads; otherwise the claims of the part after the last end of thinking (its last 20 000
    characters), which come to nothing where they disagree (`evaluation.lenient`).

    Args:
        text: the completion as generated, without the prompt.
        options: 2 to 10 distinct texts in the order shown.
        mode: see above. Strict is what rewards and main scores use; lenient is only ever reported beside it.

    Returns:
        The letter and a reason code; letter None means unparsed.

    Raises:
        ValueError: the options are too few, too many or repeat, or the mode is unknown.

    Choice: lower-case letters are read, since inside the block they cannot be an article. Whether the thinking is
        empty is not asked here but by `lightning_modules.rewards.gates`. Dress is allowed around a letter because
        published checkpoints write it, and refusing it measured form; other words are refused, a text alone must be the
        option's to the character, and a text beside a letter may differ from its option in case and dress.
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
    index, reason = lenient_choice(region, options)
    return Extraction(None if index is None else LETTERS[index], reason)


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
    by_text = letters[options.index(content)] if content in options else None
    bare = undressed(content)
    if len(bare) == 1 and bare.isascii() and bare.upper() in letters:  # "ı" has the upper case "I"
        agree = bare == content or by_text in (None, bare.upper())
        return Extraction(bare.upper(), "letter") if agree else Extraction(None, "letter_text_conflict")
    match = LETTER_AND_TEXT.fullmatch(content) or LETTER_AND_TEXT.fullmatch(bare)
    named = _named(match["text"], options) if match else set()
    if match and (letter := match["letter"].upper()) in named:
        agree = by_text in (None, letter)
        return Extraction(letter, "letter_and_text") if agree else Extraction(None, "letter_text_conflict")
    if by_text:
        return Extraction(by_text, "option_text")
    if named:
        return Extraction(None, "letter_text_conflict")
    if len(bare) == 1 and bare.isascii() and bare.isalpha():
        return Extraction(None, "letter_out_of_range")
    return Extraction(None, "not_an_option")


def undressed(content: str) -> str:
    """A block's content without Markdown, LaTeX's box and face, brackets, quotes and stops around it."""
    return DRESS.sub("", content).strip(" \n\t()[]{}\"'.,:;!")


def _named(text: str, options: Sequence[str]) -> set[str]:
    """Letters of the options with exactly this text; where there is none, of those that differ in case and dress."""
    exact = {letter for letter, option in zip(LETTERS, options, strict=False) if option == text}
    folded = undressed(text).casefold().split()
    alike = (undressed(option).casefold().split() for option in options)
    return exact or {letter for letter, option in zip(LETTERS, alike, strict=False) if option == folded}
