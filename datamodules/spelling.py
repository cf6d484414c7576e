"""Two spellings of one thing: what a reader cannot see, or would not tell apart, is set aside."""

from __future__ import annotations

import re
import unicodedata

INVISIBLE = "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff"
"""Soft hyphen, zero-width spaces and joiners, marks of direction, the byte order mark."""
SPACE = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
ALIKE = str.maketrans({**dict.fromkeys("‘’‚‛′`´", "'"), **dict.fromkeys("“”„‟″", '"'), **dict.fromkeys("‐‑‒–—−", "-")})
ENDS = ".,;:!?。、！？'\"()[]"
HIDDEN = str.maketrans(dict.fromkeys(INVISIBLE))
MISSING = frozenset("nan none null nil na n/a n.a. n.a <na> #n/a #na nat #value! #ref! undefined - -- ?".split())
"""How programs write that nothing is there, in lower case; some are answers too, so they are told and not refused."""


def bare(text: str) -> str:
    """The text without spaces and invisible characters at its ends; inside, joiners may be part of a word."""
    return text.strip(SPACE + INVISIBLE)


def plain(text: str) -> str:
    r"""One form for what looks the same: width, case, quotes, dashes; no spaces, invisible characters or end marks.

    Examples:
        >>> len({plain(text) for text in ("5 mm", "5\xa0mm", "5  mm.", "５mm", "5\u200bMM")})
        1
        >>> plain("<5"), plain("C++"), plain("…")
        ('<5', 'c++', '...')
    """
    folded = unicodedata.normalize("NFKC", text).translate(HIDDEN).translate(ALIKE).casefold()
    joined = re.sub(r"\s+", "", folded)
    return joined.strip(ENDS) or joined


def yes_or_no(text: str) -> str:
    r"""`yes` or `no` where the text is that word in any case and width, end marks set aside; else nothing.

    Examples:
        >>> [yes_or_no(text) for text in ("Yes.", "NO", "ｙｅｓ", "\u200bno\ufeff!", "Nodule", "yes, left", "y es")]
        ['yes', 'no', 'yes', 'no', '', '', '']
    """
    word = unicodedata.normalize("NFKC", text).translate(HIDDEN).casefold().strip().strip(ENDS).strip()
    return word if word in ("yes", "no") else ""


def spells_nothing(text: str) -> bool:
    """Whether a text is how programs write a missing value."""
    return unicodedata.normalize("NFKC", text).translate(HIDDEN).strip().casefold() in MISSING
