"""Transcripts whose answer is known by construction: a grammar of claims about options, with phrases to fill it.

    python -m tests.campaigns.transcripts --seeds 100000          rates of the lenient reading, by kind
    python -m tests.campaigns.transcripts --phrases held_back_2 --show 20

A transcript is thinking (perhaps), analysis of the options (perhaps), a verdict (perhaps revised, contradicted or
refused), words after it (perhaps), and may be cut off anywhere. The same grammar is filled by several sets of phrases:
`published.yaml`, in the styles of published models, and `held_back*.yaml`, each written apart and measured before any
rule was changed by it; what was measured then stands in the file.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

LETTERS = "ABCDEFGHIJ"
SETS = ("published", "held_back", "held_back_2", "held_back_3")
"""Names of the sets of phrases."""
KINDS = (
    *("verdict",) * 5,
    *("analysis",) * 8,
    *("table",) * 2,
    *("revision",) * 3,
    *("contradiction",) * 2,
    *("refusal",) * 1,
    *("denied",) * 2,
    *("cut",) * 4,
    *("open",) * 1,
)


@dataclass(frozen=True)
class Transcript:
    """One made transcript.

    Attributes:
        text: as a model would have written it.
        options: texts in the order shown.
        truth: the letter that it answers; None where it answers nothing.
        kind: of `KINDS`.
        may_give_up: a reader that reads nothing is right as well.
    """

    text: str
    options: tuple[str, ...]
    truth: str | None
    kind: str
    may_give_up: bool = False


@lru_cache
def phrases(name: str) -> Mapping[str, Mapping[str, list]]:
    """Language -> slot -> phrases, of `<name>.yaml` beside this file."""
    return yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_text(encoding="utf-8"))


def transcript(seed: int, name: str = "published") -> Transcript:
    """The transcript of a seed.

    Args:
        seed: any integer; the same seed always gives the same transcript.
        name: which phrases fill the grammar, of `SETS`.
    """
    return Maker(random.Random(f"{name} {seed}"), phrases(name)).make()


class Maker:
    """One question and the means to write about its options."""

    def __init__(self, draw: random.Random, held: Mapping[str, Mapping[str, list]]) -> None:
        self.draw = draw
        self.language = "zh" if draw.random() < 0.25 else "en"
        self.said = {**held["any"], **held[self.language]}
        pool = draw.choice(held["options"][self.language])
        count = min(draw.randint(2, 10) if draw.random() < 0.4 else draw.choice((4, 4, 5)), len(pool))
        self.options = tuple(draw.sample(pool, count))
        self.letters = LETTERS[:count]
        self.truth = draw.choice(self.letters)

    def make(self) -> Transcript:
        """Draw a kind and write it."""
        kind = self.draw.choice(KINDS)
        text, truth, may_give_up = getattr(self, f"_{kind}")()
        if kind != "open" and self.draw.random() < 0.35:
            text = self.thinking() + text
        if self.draw.random() < 0.05:
            text = text.replace(" ", "\u00a0", 2).replace(". ", ".\u200b ", 1)
        return Transcript(text, self.options, truth, kind, may_give_up)

    # -- parts ---------------------------------------------------------------------------------------------------

    def pick(self, slot: str, letter: str = "", **words: str) -> str:
        """A phrase of a slot, filled: {L} the letter, {T} its text, {X} and {Y} another letter and its text."""
        return self.fill(self.draw.choice(self.said[slot]), letter, **words)

    def fill(self, phrase: str, letter: str = "", **words: str) -> str:
        """A phrase with its places filled; braces of other kinds stay."""
        letter = letter or self.truth
        other = self.other(letter)
        known = {"L": letter, "T": self.text(letter), "l": letter.lower(), "X": other, "Y": self.text(other)} | words
        for key, value in known.items():
            phrase = phrase.replace("{" + key + "}", value)
        return phrase

    def text(self, letter: str) -> str:
        """The option of a letter, sometimes in lower case, as models write it within sentences."""
        return self.options[LETTERS.index(letter)]

    def other(self, letter: str) -> str:
        """Another letter of the question."""
        return self.draw.choice([one for one in self.letters if one != letter])

    def verdict(self, letter: str, *, plain: bool = False) -> str:
        """What settles the question; plain ones are sentences or labels, which a revision may follow."""
        slots = ["verdict"] * 6 + ["by_text"] * 1 + ([] if plain else ["form"] * 4)
        return self.pick(self.draw.choice(slots), letter)

    def reasons(self, least: int, most: int) -> str:
        """Some sentences that weigh findings and options and settle nothing."""
        count = self.draw.randint(least, most)
        chosen = [
            self.pick("reason" if self.draw.random() < 0.6 else "aside", self.other(self.truth)) for _ in range(count)
        ]
        return (" " if self.language == "en" else "").join(chosen)

    def items(self, *, judged: bool) -> list[str]:
        """One piece per option, in order: a heading and what speaks for or against it."""
        heading = self.draw.choice(self.said["heading"])
        found = []
        for letter in self.letters:
            right = letter == self.truth
            slot = ("right" if right else "wrong") if judged else ("for" if right else "against")
            number = str(LETTERS.index(letter) + 1)
            found.append(self.fill(heading, letter, n=number, why=self.pick(slot, letter)))
        return found

    def intro(self) -> str:
        """Words that announce an enumeration."""
        return self.pick("intro") + self.draw.choice(("\n\n", "\n"))

    def thinking(self) -> str:
        """A closed block of thinking that names other options on its way."""
        opening, closing = self.draw.choice(self.said["thinking"])
        decoy = self.other(self.truth)
        parts = [self.reasons(0, 2), self.pick("verdict", decoy), self.pick("revise"), self.reasons(0, 1)]
        return f"{opening}{' '.join(parts)}{closing}"

    def after(self) -> str:
        """What follows a verdict: nothing, an explanation, why the others are wrong, a notice."""
        if self.draw.random() < 0.5:
            return ""
        slot = self.draw.choice(("explanation", "others_wrong", "notice"))
        return self.draw.choice(("\n\n", "\n", " ")) + self.pick(slot, self.truth)

    # -- kinds ---------------------------------------------------------------------------------------------------

    def _verdict(self) -> tuple[str, str | None, bool]:
        before = self.reasons(0, 2)
        form = self.verdict(self.truth)
        gap = self.draw.choice(("\n\n", "\n"))
        return (before + gap if before else "") + form + self.after(), self.truth, False

    def _analysis(self) -> tuple[str, str | None, bool]:
        judged = self.draw.random() < 0.5
        gap = self.draw.choice(("\n\n", "\n"))
        parts = [self.intro() + gap.join(self.items(judged=judged))]
        if judged and self.draw.random() < 0.15:
            return parts[0], self.truth, True
        if self.draw.random() < 0.3:
            parts.append(self.reasons(1, 2))
        return "\n\n".join(parts) + "\n\n" + self.verdict(self.truth) + self.after(), self.truth, False

    def _table(self) -> tuple[str, str | None, bool]:
        judged = self.draw.random() < 0.5
        rows = [self.pick("row", one, why=self.pick("for" if one == self.truth else "against", one),
                          mark=self.draw.choice(self.said["yes" if one == self.truth else "no"]) if judged else "-")
                for one in self.letters]  # fmt: skip
        text = self.pick("table_head") + "\n" + "\n".join(rows) + "\n\n"
        if self.draw.random() < 0.15:
            return text, None if not judged else self.truth, True
        return text + self.verdict(self.truth) + self.after(), self.truth, False

    def _revision(self) -> tuple[str, str | None, bool]:
        first = self.verdict(self.other(self.truth), plain=True)
        turned = f"{first}{self.draw.choice((' ', chr(10), chr(10) * 2))}{self.pick('revise')}"
        return f"{turned} {self.reasons(0, 1)} {self.verdict(self.truth, plain=True)}", self.truth, False

    def _contradiction(self) -> tuple[str, str | None, bool]:
        phrase = self.draw.choice(self.said["verdict"])
        two = [self.fill(phrase, self.truth), self.fill(phrase, self.other(self.truth))]
        return f"\n{self.reasons(0, 1)}\n".join(two), None, False

    def _refusal(self) -> tuple[str, str | None, bool]:
        return (self.reasons(0, 2) + "\n" + self.pick("refusal")).strip(), None, False

    def _denied(self) -> tuple[str, str | None, bool]:
        return " ".join(self.pick("denial", one) for one in self.draw.sample(self.letters, 2)), None, False

    def _cut(self) -> tuple[str, str | None, bool]:
        """An enumeration that is cut off anywhere behind the second heading, or inside the first behind an intro."""
        gap = self.draw.choice(("\n\n", "\n"))
        opening = self.intro() if self.draw.random() < 0.6 else ""
        judged = self.draw.random() < 0.3
        items = self.items(judged=judged)
        text = opening + gap.join(items)
        least = len(opening) + 1 if opening else len(items[0]) + len(gap) + 6
        place = self.draw.randint(min(least, len(text)), len(text))
        return text[:place], self.truth if judged else None, True

    def _open(self) -> tuple[str, str | None, bool]:
        """Thinking that never ends, whatever it says."""
        opening, _ = self.draw.choice(self.said["thinking"])
        return f"{opening}{self.reasons(0, 3)} {self.pick('verdict', self.truth)}", None, False


@dataclass(frozen=True)
class Rates:
    """Readings of many transcripts. `wrong` counts letters that are not the truth, `unread` what had to be read."""

    n: int
    wrong: int
    unread: int
    seconds: float
    by_kind: Mapping[str, tuple[int, int, int]]
    examples: Sequence[tuple[Transcript, str | None]]


def measure(seeds: Iterable[int], name: str = "published") -> Rates:
    """Read the transcripts of these seeds leniently."""
    from evaluation.answers import extract

    made = [transcript(seed, name) for seed in seeds]
    started = time.process_time()
    read = [extract(item.text, item.options, "lenient").letter for item in made]
    seconds = time.process_time() - started
    total, wrong, unread = Counter(), Counter(), Counter()
    examples = []
    for item, letter in zip(made, read, strict=True):
        total[item.kind] += 1
        bad = letter is not None and letter != item.truth
        missed = letter is None and item.truth is not None and not item.may_give_up
        wrong[item.kind] += bad
        unread[item.kind] += missed
        if bad or missed:
            examples.append((item, letter))
    by_kind = {kind: (total[kind], wrong[kind], unread[kind]) for kind in dict.fromkeys(KINDS)}
    return Rates(len(made), wrong.total(), unread.total(), seconds, by_kind, examples)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print rates by kind; exit code 1 where they are above 0.2 % wrong or 3 % unread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--phrases", default="published", choices=SETS)
    parser.add_argument("--show", type=int, default=0, help="print so many misreadings")
    given = parser.parse_args(arguments)
    found = measure(range(given.first, given.first + given.seeds), given.phrases)
    for item, letter in found.examples[: given.show]:
        print(f"--- {item.kind}: read {letter}, is {item.truth}; {item.options}\n{item.text}\n")
    print(f"{'kind':14} {'n':>7} {'wrong':>7} {'unread':>7}")
    for kind, (n, wrong, unread) in found.by_kind.items():
        print(f"{kind:14} {n:7} {wrong:7} {unread:7}")
    share = 100 / found.n
    print(f"{'all':14} {found.n:7} {found.wrong * share:6.2f}% {found.unread * share:6.2f}%")
    print(f"{1000 * found.seconds / found.n:.3f} ms each")
    return int(found.wrong * share > 0.2 or found.unread * share > 3)


if __name__ == "__main__":
    sys.exit(main())
