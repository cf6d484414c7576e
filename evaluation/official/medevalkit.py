"""MedEvalKit's scoring, so that numbers compare with tables made by it.

Behaves like the release at 9b12e3b, defects included; the code is ours. Its BLEU and ROUGE are left out: they do not
enter its accuracies. Named defects:
- `nearest`: a choice that is not read is the most similar option, the first one where nothing is: an empty answer, a
  refusal or "(B)" is never unparsed and is right about as often as a guess.
- `substring`: yes and no are looked for inside words: "no" stands in "abnormality" and in "unknown".
- `capital`: SLAKE's rule for yes and no never applies, since its answers are capitalised; they need an exact text.
- `swapped`: `(f1, precision, recall)` is unpacked as `(precision, recall, f1)`.
- `empty`: an empty free answer stops the release with an error; here it is wrong.
- `verdict`: a judge's reply that is not understood is a wrong answer.
- `judged_totals`: with a judge, SLAKE counts closed answers twice and PathVQA forgets them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

CUES = (
    "**answer**:",
    "**answer**",
    "*answer*:",
    "**answer:**",
    "answer is",
    "answer:",
    "答案:",
    "final answer",
    "final answer is",
)
"""Cut at in this order: each keeps what follows its last occurrence in what the cues before it left."""

Reason = Literal["letter", "option_text", "nearest"]


@dataclass(frozen=True)
class Choice:
    """How a multiple-choice answer was scored: whether it counts as right, and by which rule."""

    right: bool
    reason: Reason


def multiple_choice(text: str, options: Sequence[str], gold_letter: str) -> Choice:
    """Score an answer to a question with options.

    Args:
        text: the completion as generated.
        options: the texts in the order shown.
        gold_letter: the right option's letter.
    """
    texts = [option.lower() for option in options]
    letters = [chr(ord("a") + i) for i in range(len(options))]
    gold = gold_letter.strip().lower()
    paragraphs = text.lower().split("\n\n")
    ending = paragraphs[-1].split(".")[0]
    lone = paragraphs[0] if paragraphs[0] in letters else ending if ending in letters else text
    said = _answer_part(lone).strip().replace("\n", "")
    short = said.split(".")[0].split(":")[-1]
    if short == gold:
        return Choice(True, "letter")
    if short in letters:
        return Choice(texts[letters.index(short)] == gold, "letter")
    if short in texts:
        return Choice(short == texts[letters.index(gold)], "option_text")
    ratios = [SequenceMatcher(None, option, said).ratio() for option in texts]
    nearest = max(range(len(texts)), key=lambda i: ratios[i])
    return Choice(gold in (letters[nearest], texts[nearest]), "nearest")


def yes_no(text: str, gold: str) -> bool:
    """Score a closed answer as for VQA-RAD and PathVQA.

    Args:
        text: the completion as generated.
        gold: "yes" or "no", in any case.
    """
    return _substring(_outer_part(text).lower().strip(), gold.lower().strip())


def slake_closed(text: str, gold: str) -> bool:
    """Score a closed answer as for SLAKE: by substring if the answer is "yes" or "no" in lower case, else exactly."""
    said = _outer_part(text)
    return _substring(said, gold) if gold in ("yes", "no") else _bare(said) == gold.lower()


class OpenScore(NamedTuple):
    """Scores of a free answer by the release's names: `precision` holds the F1, `recall` the precision, `f1` recall."""

    exact: bool
    precision: float
    recall: float
    f1: float


def open_answer(text: str, gold: str) -> OpenScore:
    """Score a free answer by exact match and by its set of words, named as the release names them."""
    said, right = _answer_part(_outer_part(text)), gold.lower()
    words, gold_words = set(said.split()), set(right.split())
    common = words & gold_words
    if not common:
        return OpenScore(said == right, 0.0, 0.0, 0.0)
    precision, recall = len(common) / len(words), len(common) / len(gold_words)
    return OpenScore(said == right, 2 * precision * recall / (precision + recall), precision, recall)


def answer_shown(text: str) -> str:
    """What the release shows its judge of a completion: the box, else the answer blocks, else all of it."""
    return _outer_part(text)


def judged_right(reply: str) -> bool:
    """What the release makes of its judge's reply: right if what stands in its tags, or else all of it, is 0.

    Named defect `verdict`: any other reply, such as one that was cut off or none at all, is a wrong answer.
    """
    return _tagged(reply, "judge") == "0"


class Totals(NamedTuple):
    """Right answers as the release counts them; the shares of n may exceed 1 or leave answers out."""

    total: int
    closed: int
    open: int


def judged_totals(
    dataset: Literal["vqa_rad", "slake", "path_vqa"],
    is_open: Sequence[bool],
    by_rule: Sequence[bool],
    by_judge: Sequence[bool],
) -> Totals:
    """Count right answers as the release does where a language model judges.

    Args:
        dataset: whose metric.
        is_open: (n,) whether a question is free text.
        by_rule: (n,) whether the rule above calls the answer right.
        by_judge: (n,) whether the judge does; looked at for closed questions by SLAKE alone.

    Choice: VQA-RAD's open answers that the rule calls right stay in its total and are added again if the judge
        agrees, as in the released metric at 564d279; its separate counts are sound.
    """
    rows = list(zip(is_open, by_rule, by_judge, strict=True))
    open_judged = sum(judge for free, _, judge in rows if free)
    closed = sum(rule for free, rule, _ in rows if not free)
    if dataset == "path_vqa":
        return Totals(open_judged, 0, open_judged)
    if dataset == "slake":
        twice = closed + sum(judge for free, _, judge in rows if not free)
        return Totals(twice + open_judged, twice, open_judged)
    return Totals(sum(by_rule) + open_judged, closed, open_judged)


def _answer_part(text: str) -> str:
    text = text.lower()
    if "boxed" in text:
        text = _boxed(text)
    elif "<answer>" in text:
        text = _tagged(text)
    for cue in CUES:
        text = text.rpartition(cue)[2]
    return text


def _outer_part(text: str) -> str:
    """What the open and closed sets look at first, before the rest of `_answer_part`."""
    boxed = _boxed(text)
    return boxed if boxed != "None" else _tagged(text) if "<answer>" in text else text


def _bare(text: str) -> str:
    return _answer_part(text).replace("\n", "").replace(".", "")


def _substring(text: str, gold: str) -> bool:
    said = _bare(text)
    return ("yes" in said) != ("no" in said) and gold in said


def _boxed(text: str) -> str:
    """Content of the last box with balanced braces; the word "None" without one."""
    start = text.rfind("\\boxed{")
    depth = 0
    for end in range(start + 7, len(text) if start >= 0 else 0):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth < 0:
            return text[start + 7 : end].strip()
    return "None"


def _tagged(text: str, tag: str = "answer") -> str:
    """Contents of all closed blocks of a tag, joined by blanks; the whole text if they are empty."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    parts = []
    start = text.find(opening)
    while start >= 0 and (end := text.find(closing, start + len(opening))) >= 0:
        parts.append(text[start + len(opening) : end])
        start = text.find(opening, end)
    return " ".join(parts).strip() or text
