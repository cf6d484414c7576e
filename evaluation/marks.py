"""Options in a text, each put as one character, so that a rule can say where an option stands and what surrounds it."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

LETTERS = "ABCDEFGHIJ"
LETTER, TEXT, BOTH, ODD = (chr(0xE000 + 16 * kind) for kind in range(4))
"""Marks of option 0: its letter, its text, both together; and of a letter with another option's text."""
BOX = re.compile("⟪([^⟪⟫]*)⟫")
"""A framed answer, LaTeX's box, after `plain`."""

TOKENS = re.compile(r"<\|[^<>|\s]{1,40}\|>|</?s>|<(?:eos|bos|end_of_turn|start_of_turn)>|__|\\[,;!()\[\]]")
SEEN = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "⟪": "", "⟫": ""}
    | dict.fromkeys("*`#$\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff", "")
    | {code: None for code in range(ord(LETTER), ord(ODD) + 1)}
)
FACE = re.compile(r"\\(?:text\w{0,6}|math\w{2,3}|bf|rm)\s?\{([^{}]{0,400})\}")
FRAME = re.compile(r"\\(?:boxed|fbox|framebox)\s?\{([^{}]{0,400})\}")
SPACES = re.compile(r"[^\S\n]+")

CJK = re.compile("[\u2e80-\u9fff\uac00-\ud7af]")
WORD = r"[^\W\u2e80-\u9fff\uac00-\ud7af]"  # Chinese, Japanese and Korean put no blanks around a letter
ENDED = (
    r"\s*(?:$|\n|[,;:!?)\]}>\"'/&|=。、⟫<]|\.(?!\w)(?!\s[a-z])|[–—]|-(?!\w))|\s?[\u2e80-\u9fff\uac00-\ud7af]"
    r"|\s(?:[(\[-]|"
)
NEXT = re.compile(
    ENDED + r"(?:because|since|given|due|based|which|that|is|was|and|or|but|not|rather|instead|over|as|in|for|with|on|"
    r"here|fits|seems|matches|appears|would|can|cannot|could|does|must|has|it|best|most|by|the (?:correct|best|right))"
    r"\b|(?:can|does|is|was)n?'t)"
)
NEXT_TO_I = re.compile(ENDED + r"(?:because|since|is|fits|rather|and|or|not|but|over|as|instead)\b)")
"""What may follow a letter; behind I, which may be the writer, less may."""
JOINS = re.compile(rf"{WORD}|-")
WORDLIKE = re.compile(rf"{WORD}|-\w")
ARTICLE_FITS = re.compile(r"(?:is|therefore|thus|hence|so|choose|pick|select),? $", re.IGNORECASE)
CAPITAL = re.compile(r" [A-Z][a-z']")
HARD_END = re.compile(r"[^\S\n]*(?:$|[\n.,;:!)\"'⟫<。、])")
SHORT = frozenset("yes no not none true false both neither all either other a i an the is".split())
"""Options that are common words; they are taken for options where nothing but a stop follows."""
NEW_SENTENCE = re.compile(r" (?:is|was|would|usually|typically|can|may|does|has|are|通常)|通常|的|不|可")
JOINED = re.compile(
    r"([\ue000-\ue00f])( ?[).:\],、=|]{0,2} ?(?:[-–—|(=] ?)?)([\ue010-\ue01f])\)?"
    r"|([\ue010-\ue01f]) ?[(\[–—-]? ?([\ue000-\ue00f])"
)


def plain(text: str) -> str:
    """NFKC, straight quotes, no mark-up, end tokens or unseen characters, single blanks; line breaks stay.

    LaTeX's faces go, and its boxes become ⟪ and ⟫.
    """
    text = unicodedata.normalize("NFKC", TOKENS.sub(" ", text)).translate(SEEN)
    text = FRAME.sub(r"⟪\1⟫", FACE.sub(r"\1", text)) if "\\" in text else text
    return re.sub(r"\s*\n[\s>]*", "\n", SPACES.sub(" ", text)).lstrip(" \n>").rstrip()


class Marker:
    """The options of one question, ready to be looked for."""

    def __init__(self, options: Sequence[str], *, lettered: bool) -> None:
        """Take in the options.

        Args:
            options: the texts in the order shown.
            lettered: letters were shown beside them; else a letter names nothing.
        """
        texts = [plain(text) for text in options]
        letters = LETTERS[: len(options)] if lettered else ""
        exact, lower = Counter(texts), Counter(map(lowered, texts))
        self.exact = {text: i for i, text in enumerate(texts) if text and exact[text] == 1 and text not in [*letters]}
        # Options that differ in case alone (genes) are read only where they are all that is written.
        self.texts = {lowered(text): mark(TEXT, i) for text, i in self.exact.items() if lower[lowered(text)] == 1}
        for text in self.texts:
            label = re.match(r"([a-j])[.)] (.+)", text)  # "A. fumigatus" beside an option A that is "fumigatus"
            if label and self.texts.get(label[2]) == mark(TEXT, LETTERS.index(label[1].upper())):
                self.texts[text] = ODD
        self.letter, self.small = letter_patterns(letters)

    def whole(self, text: str) -> int | None:
        """The option whose very text this is."""
        text = text if text in self.exact else text.rstrip(".")
        return None if self.texts.get(lowered(text)) == ODD else self.exact.get(text)

    def __call__(self, text: str) -> str:
        """A plain text with every option in it put as one mark; what opens and closes a letter goes with it."""
        text = self._with_texts(text)
        if self.letter:
            text = JOINED.sub(_joined, self.letter.sub(_marked, self.small.sub(_raised, text)))
        return text

    def _with_texts(self, text: str) -> str:
        """A text with the options' texts marked, of those that overlap the first and longest."""
        low, found = lowered(text), []
        for name in self.texts:
            start = low.find(name)
            while start >= 0:
                end = start + len(name)
                if stands_alone(text, start, end) and not (name in SHORT and not HARD_END.match(text, end)):
                    found.append((start, -end, self.texts[name]))
                start = low.find(name, end)
        parts, place = [], 0
        for start, minus_end, character in sorted(found):
            if start >= place:
                parts += [text[place:start], character]
                place = -minus_end
        return "".join([*parts, text[place:]])


@lru_cache
def letter_patterns(letters: str) -> tuple[re.Pattern[str], re.Pattern[str]] | tuple[None, None]:
    """Patterns of a capital letter that names an option, and of a small one where it can be nothing else."""
    if not letters:
        return None, None
    return (
        re.compile(
            rf"(?<!{WORD})(?<![-'.])(?P<called>(?i:option|choice|letter|alternative)[ ]|选项[ ]?)?"
            rf"[(\[\"'{{]{{0,3}}(?P<letter>[{letters}])(?P<closed>[)\]\"'}}]{{0,3}})(?!{WORD}|[-'.]\w)"
        ),
        re.compile(
            r"((?i:\b(?:answer|option|choice|ans|therefore|thus|hence|so|choose|pick|select)(?:\sis)?,?\s?[:.]?\s?)\(?"
            rf"|(?<!\w)\(|^)([{letters.lower()}])(?=[).,;!\n]|\s*$|\s(?:is|fits)\s)"
        ),
    )


def lowered(text: str) -> str:
    """A text in lower case and of the same length."""
    low = text.lower()
    return low if len(low) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def stands_alone(text: str, start: int, end: int) -> bool:
    """Whether a piece of a text is no part of a longer word or number."""
    front, back = text[max(0, start - 2) : start], text[end : end + 2]
    if front and (JOINS.match(front[-1]) or (front[-1] in ".," and front[0].isdigit())) and not CJK.match(text[start]):
        return False
    inside = back and (WORDLIKE.match(back) or (back[0] == "." and back[1:].isdigit()))
    return not inside or bool(CJK.match(text[end - 1]))


def mark(kind: str, index: int) -> str:
    """The character of an option."""
    return chr(ord(kind) + index)


def option_of(character: str) -> int | None:
    """Index of the option that a mark stands for; None for `ODD`."""
    return None if character >= ODD else (ord(character) - ord(LETTER)) % 16


def _marked(match: re.Match[str]) -> str:
    """A letter that names an option as its mark."""
    letter, text, end = match["letter"], match.string, match.end()
    index = LETTERS.index(letter)
    behind = text[end : end + 3]
    label = behind[:1] in tuple(".:、)") and (opens_line(match) or TEXT <= behind[1:].strip()[:1] <= ODD)
    own = behind[:2] == " " + mark(TEXT, index)  # "B Sarcoidosis"
    sure = match["called"] or ")" in match["closed"] or "]" in match["closed"] or label or own
    answers = letter not in "AI" or text[match.start() - 2 : match.start()] == ": "  # no article, not the writer
    goes_on = (NEXT_TO_I if letter == "I" else NEXT).match(text, end) or (answers and CAPITAL.match(text, end))
    return mark(LETTER, index) if sure or goes_on else match[0]


def opens_line(match: re.Match[str]) -> bool:
    """Whether nothing but bullets and numbers stand before a letter in its line."""
    start = match.string.rfind("\n", 0, match.start()) + 1
    return match.start() - start < 8 and not any(map(str.isalpha, match.string[start : match.start()]))


def _raised(match: re.Match[str]) -> str:
    """A small letter as a capital, unless it may be an article before a text that was cut off: "the answer is a"."""
    article = match[2] == "a" and match.end() == len(match.string) and ARTICLE_FITS.search(match[1])
    return match[0] if article else match[1] + match[2].upper()


def _joined(match: re.Match[str]) -> str:
    """A letter and a text beside it as one mark; a letter before a comma only goes with its own text."""
    letter, text = (match[1], match[3]) if match[1] else (match[5], match[4])
    if option_of(letter) == option_of(text):
        return mark(BOTH, option_of(letter))
    apart = match[1] and ("," in match[2] or NEW_SENTENCE.match(match.string, match.end()))
    return match[0] if apart else ODD
