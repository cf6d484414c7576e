"""The lenient reading: ordered rules over free text, each of which would rather give up than guess."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

REGION = 20_000
"""Characters from the end of the completion that are looked at; bounds the time."""

LenientReason = Literal[
    "answer_tag",  # read: the only answer block
    "boxed",  # read: \boxed{B}
    "whole",  # read: the whole text is a letter, "B. text" or an option's text
    "line",  # read: the first or last line is one
    "statement",  # read: "the answer is B", "therefore C", "B is correct"
    "mention",  # read: exactly one option is named and not negated
    "unclosed_think",  # not read: no end of thinking (decided by the caller)
    "conflict",  # not read: two readings disagree
    "several",  # not read: "A or B"
    "negated",  # not read: only says what it is not
    "refusal",  # not read: declines to choose
    "nothing",  # not read: none of the rules applies
]

Found = tuple[str | None, LenientReason]

STOP = r"(?=\s*(?:$|\n|[.,;:!)\]\"'/&](?!\w)|[–—]|-(?!\w)|/)|[^\S\n]*\n"
AFTER = (
    r"|\s+(?:because|since|given|due|based|which|that|is|was|and|or|but|not|rather|instead|over|as)\b"
    r"|\s+[(\[]?[A-J][).\]:]\s|\s?[(\[](?:option\s)?[A-J][)\]]|\s\((?:(?:and|but)\s)?(?:not|rather|instead)\b"
)
TEXT_END = re.compile(STOP + AFTER + ")", re.IGNORECASE)
LETTER_END = re.compile(STOP + AFTER + r"|\s+(?:in|for|with|on|here)\b)", re.IGNORECASE)
LETTER = re.compile(r"(?P<open>[(\[\"']?)(?P<letter>[A-Ja-j])(?P<close>[)\]\"']?)(?![\w'])")
BEHIND = re.compile(r"\s?[(\[](?:[Oo]ption\s)?(?P<letter>[A-J])[)\]]")
LEAD = re.compile(
    r"(?:[-=]+>\s*|→\s*)?(?:(?:the\s+)?(?:option|choice|letter|answer)\s+"
    r"|(?:(?:most\s+)?likely|probably|definitely|certainly|clearly)\s+)?(?=[(\[\"']?[A-J]\b)",
    re.IGNORECASE,
)
LABEL = re.compile(r"(?P<mark>[).:\]]|\s[-=])?\s*(?P<rest>\S?)")
FILLER = re.compile(
    r"(?:[\s\"':=(\[-]|(?:the|option|choice|letter|answer|number|clearly|definitely|certainly|probably|most|likely|"
    r"indeed|therefore|simply|just|still)\s)*",
    re.IGNORECASE,
)
CUE = re.compile(
    r"(?:\b(?:"
    r"(?:(?P<final>final\s+)?(?:answer|(?:correct|best|right|likely|final|my|selected|chosen)\s+"
    r"(?:option|choice|pick|selection|diagnosis))(?:\s+(?:here|to (?:this|the) question)|,\s?then,)?"
    r"(?:\s+(?:is|was|should be|must be|would be)|\s?(?:[-=]+>|[:=→])|\sisn)?|diagnosis\s?(?:is|:|isn))"
    r"(?:\s+(?P<neg>not|never)\b|(?P<nt>n't))?"
    r"|(?:I|we)(?:'d|'ll)?\s+(?:would\s+|will\s+)?(?:choose|pick|select|go with|say)|I'm going with"
    r"|let(?:'s|\s+us)\s+(?:choose|pick|select|go with)"
    r"|(?P<it>it(?:'s|\s+is|\s+must be))"
    r"|(?:therefore|thus|hence|so|in conclusion|conclusion)[,:]?(?:\s(?:it|this)(?:'s|\sis|\smust be))?"
    r")|(?:^|\n)(?:option|choice|pick|verdict|selection|result|final|ans)\s?[:.=]|答案\s?[是为]?"
    r")(?:(?=[\s:=(\[\"'])|(?<=[案是为→>]))",
    re.IGNORECASE,
)
VERDICT = re.compile(
    r"\s+(?:is|was)(?P<neg>n't|\s+not)?\s+(?:also\s+)?(?:the\s+)?"
    r"(?:(?:most\s+likely\s+)?(?:correct|right|best|better(?=\s*(?:$|[.,;!\n]|answer|choice|option)))|most\s+likely(?:\s+(?:answer|option|choice|diagnosis))?)\b",
    re.IGNORECASE,
)
DOUBT = re.compile(
    r"\b(?:not|never|unlikely|doubt|if|whether|would|could|might|may|someone|suppose|assuming|cannot|no|mistake|"
    r"initially|(?:I|we)(?: first)? thought)\b|n't\b",
    re.IGNORECASE,
)
CLAUSE = re.compile(
    r",\s(?:but\s|and\s)?|\b(?:correct|right|best|likely)\s(?:and|but)\s|^(?:however|but)\s", re.IGNORECASE
)
LEADING = re.compile(r".*\b(?:think|believe|say|so|therefore|that)\s", re.IGNORECASE)
SURE = re.compile(r"\b(?:no|without(?: a)?|beyond) doubt\b", re.IGNORECASE)
UNSURE = re.compile(
    r"\b(?:not|never|no|nobody|few|some|hardly|doubt|unlikely|if|whether|unless|false|wrong|incorrect|mistake|might|may|"
    r"could|cannot|someone|suppose|assuming|used to|initially|at first)\b|n't\b",
    re.IGNORECASE,
)
ALIKE = re.compile(r"\s*,?\s*(?:and\s)?(?:so|as)\s(?:is|was)\s", re.IGNORECASE)
OPPOSITE = re.compile(
    r"(?:\b(?:wrong|incorrect|false|least|less)\s+(?:most\s+)?(?:likely\s+)?|\bif so,\s.{0,20})$", re.IGNORECASE
)
TAKEN_BACK = re.compile(
    r"\s*(?:,\s*but\s(?:it|this|that)\s(?:is|was)(?:n't|\snot)\b"
    r"|(?:[.;]\s*(?:this|that|it)|,\s*which)\s(?:is|was)\s(?:wrong|incorrect|false|not\s(?:right|correct|true))\b)",
    re.IGNORECASE,
)
CORRECTED = re.compile(
    r"\s*[,.;–—-]+\s*(?:but\s)?(?:no|wait|sorry|actually|rather|correction|on (?:second thoughts?|reflection))\b"
    r"[\s,:]*",
    re.IGNORECASE,
)
TURN = re.compile(r"\b(?:wait|no|actually|correction|rather|instead|sorry|revised?|mistake|second thought)\b", re.I)
REFUSAL = re.compile(
    r"\b(?:cannot|can't|can not|unable to|not able to|impossible to)\s+(?:\w+\s+)?"
    r"(?:tell|say|determine|answer|decide|choose|assess|see|interpret|provide)\b"
    r"|\b(?:cannot|can't|can not) be (?:\w+ )?"
    r"(?:told|said|determined|assessed|seen|interpreted|answered|made|given|established)\b"
    r"|\b(?:insufficient|not sure|unsure|don't know|do not know|none of the (?:above|options)|as an ai|unknown)\b",
    re.IGNORECASE,
)
JOIN = re.compile(
    r"\s*(?:,?\s*(?:and/or|or|and|as well as)\s|/|,|&)\s*(?:(?:possibly|perhaps|maybe|even|also)\s+)?", re.IGNORECASE
)
BEFORE = re.compile(
    r"(?:^|[.,;:!?(\"'\n-]|\b(?:is|are|was|be|with|of|shows?|suggests?|indicates?|measures?|represents?|confirms?|"
    r"demonstrates?|reveals?|diagnosis|likely|probably|definitely|has|have|an?|the|choose|say|favou?rs?|or|and|but))\s*$",
    re.IGNORECASE,
)
REJECT_BEFORE = re.compile(
    r"\b(?:least|less)\slikely\b[^.;,]{0,30}$"
    r"|\b(?:anything but|not|no|never|without|neither|nor|than|rather than|instead of|excludes?|rules? out|against|"
    r"unlike|over)\s+"
    r"(?:(?:a|an|the|likely|consistent with|typical of|"
    r"(?:evidence|signs?|features|findings|suggestion) (?:of|for))\s+)*$"
    # in the same clause: "does not show …", "absence of …", "I doubt that this is …"
    r"|(?:\b(?:not|never|cannot|fail(?:s|ed)?|unable|absence|lack|free|exclusion|inconsistent|incompatible|atypical|"
    r"opposite|doubt|unlikely|unusual|hardly|negative|no way)"
    r"|\b(?:less|low|little|minimal)\s(?:likely|likelihood|probability|suspicion|consistent|compatible|typical|suggestive)"
    r"|n't)\b(?:(?!\b(?:but|and|so|because|rather|instead|suggests|shows|indicates)\b)[^.;:!?,\n])*$"
    r"|\b(?:neither|nothing)\b[^.;:!?,\n]*$"
    # in the same list: "no effusion, consolidation or …"
    r"|\b(?:no|without)\s\w(?:(?!\b(?:but|is|are|was|were|has|have|shows?|suggests?|indicates?|confirms?)\b)[^.;:!?\n])*$"
    r"|\b(?:history|risk|(?:past|prior|previous) diagnosis)\sof\s(?:an?\s)?$",
    re.IGNORECASE,
)
REJECT_AFTER = re.compile(
    r"\s*(?:,\s*)?(?:(?:is|are|was|seems|looks|can be|appears)\s+)?"
    r"(?:(?<=is )not\b|(?<=are )not\b|(?<=was )not\b|not likely|unlikely|less likely|excluded|ruled out|rejected|wrong|"
    r"incorrect|does not|doesn't|isn't|wasn't|cannot be|can't be)"
    r"|\s*(?:is|are|was|seems|looks|appears)\s(?:absent|improbable|doubtful|questionable|possible|"
    r"(?:a|one|another) (?:possibility|distractor|trap)|no longer|considered but)\b",
    re.IGNORECASE,
)
REMARK = re.compile(
    r"(?:\s?[:(–—-]\s?|,\swhich\s(?:is|was)\s)(?:no|not|absent|negative|unlikely|excluded|ruled out)\b", re.IGNORECASE
)
FUNCTION_WORDS = frozenset("yes no not none true false both neither all either other a i an the is".split())
QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "*": "", "`": "", "#": "", "$": ""})
SPACES = re.compile(r"[^\S\n]+")
BLOCK = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.IGNORECASE | re.DOTALL)
BOXED = re.compile(r"\\boxed\{(?:\\(?:text|textbf|mathrm|mathbf)\{)?([^{}]{0,400})\}\}?")
TOKENS = re.compile(r"<\|[^<>|\s]{1,40}\|>|</?s>|<(?:eos|end_of_turn)>|__")


def plain(text: str) -> str:
    """NFKC, straight quotes, no Markdown marks or end tokens, single blanks; line breaks stay."""
    text = TOKENS.sub(" ", unicodedata.normalize("NFKC", text).translate(QUOTES))
    return re.sub(r"\s*\n\s*", "\n", SPACES.sub(" ", text)).strip()


def lenient_letter(region: str, options: Sequence[str], letters: str) -> Found:
    """Apply the rules in order: answer block, box, whole text, first or last line, statements, single mention.

    Args:
        region: what follows the thinking, at most `REGION` characters.
        options: the texts in the order shown.
        letters: as many letters as options.

    Returns:
        The letter, or None, and the reason.
    """
    reader = Reader(options, letters)
    text = plain(region)
    for pattern, reason in ((BLOCK, "answer_tag"), (BOXED, "boxed")):
        contents = [plain(BOXED.sub(r"\1", match.group(1))) for match in pattern.finditer(text)]
        if not contents:
            continue
        found = {reader.free_text(content)[0] for content in contents}
        if len(found) > 1:
            return None, "conflict"
        letter = found.pop()
        return (letter, reason) if letter else (None, reader.free_text(contents[0])[1])
    return reader.free_text(text)


class Reader:
    """The options of one question, ready to be looked for."""

    def __init__(self, options: Sequence[str], letters: str) -> None:
        self.letters = letters
        pairs = [(text, letter) for text, letter in zip(map(plain, options), letters, strict=True) if text]
        times, folded = Counter(text for text, _ in pairs), Counter(text.casefold() for text, _ in pairs)
        self.exact = {text: letter for text, letter in pairs if times[text] == 1}
        # Options that differ in case alone (genes) are read only where they are all that is written.
        unique = [(text.casefold(), letter) for text, letter in pairs if folded[text.casefold()] == 1]
        self.texts = sorted(unique, key=lambda pair: -len(pair[0]))
        names = "|".join(re.escape(text) for text, _ in self.texts)
        self.mention = re.compile(rf"(?<![\w-])(?<!\d[.,])(?:{names})(?![\w-]|\.\d)", re.I) if names else None

    def free_text(self, text: str) -> Found:
        """The rules below the answer block."""
        lines = [line for line in text.split("\n") if line]
        whole = self.whole(text)
        if whole:
            return (None, "conflict") if whole == "conflict" else (whole, "whole")
        ends = {letter for line in (lines[:1] + lines[-1:]) if (letter := self.whole(line))}
        if len(ends) > 1 or "conflict" in ends:
            return None, "conflict"
        if ends:
            return ends.pop(), "line"
        stated = self.statements(text)
        return stated if stated is not None else self.mentions(text)

    def whole(self, text: str) -> str | None:
        """A text that is nothing but a letter, a letter with its text, or an option's text; "conflict" if at odds."""
        bare = text.strip(" .!\"'[]{}")
        bare = bare[lead.end() :] if (lead := LEAD.match(bare)) else bare
        behind = BEHIND.fullmatch(bare, bare.rfind("(") - 1) if bare.endswith(")") and "(" in bare[1:] else None
        if behind and behind["letter"] in self.letters and (named := self.letter_of(bare[: behind.start()].strip())):
            return named if named == behind["letter"] else "conflict"  # "text of B (B)", "text of B (C)"
        match = LETTER.match(bare)
        rest = LABEL.sub(r"\g<rest>", bare[match.end() :], count=1).strip() if match else ""
        by_text = self.letter_of(bare)
        if match and match["letter"].upper() in self.letters:
            letter = match["letter"].upper()
            if not rest:
                return letter
            if self.letter_of(rest) == letter:
                return letter if by_text in (None, letter) else "conflict"  # "A. fumigatus", both options
            if self.letter_of(rest) not in (None, letter) and by_text is None:
                return "conflict"  # "B. text of C"
        return by_text

    def letter_of(self, text: str) -> str | None:
        """The option whose text this is, if it is exactly one."""
        if text in self.exact:
            return self.exact[text]
        found = {letter for option, letter in self.texts if option in (text.casefold(), text.casefold() + ".")}
        return found.pop() if len(found) == 1 else None

    def read_at(self, text: str, start: int) -> tuple[str | None, int]:
        """An option's letter or text that begins at `start`, after filler words; with the place where it ends."""
        start = FILLER.match(text, start).end()
        article = re.compile(r"an?\s", re.IGNORECASE).match(text, start)
        by_text, text_end = self.text_at(text, start)
        if by_text is None and article:
            by_text, text_end = self.text_at(text, article.end())
        match = LETTER.match(text, start)
        behind = BEHIND.match(text, text_end) if by_text else None
        if behind and behind["letter"] in self.letters:  # "text of B (B)", "text of B (C)"
            return (by_text if behind["letter"] == by_text else "conflict"), behind.end()
        if not match or match["letter"].upper() not in self.letters:
            return by_text, text_end
        letter, end = match["letter"].upper(), match.end()
        label = LABEL.match(text, end)
        own, own_end = self.text_at(text, label.start("rest"))
        if own == letter:
            return letter, own_end
        if by_text is not None:  # "a lung abscess" is an article; "A lung abscess" may be either
            return (by_text if match["letter"].islower() else "conflict"), text_end
        if own is not None:  # "B. text of C"
            return "conflict", own_end
        if label["mark"] == "." and label["rest"].islower():  # "A. fumigatus"
            return None, end
        if LETTER_END.match(text, end) or label["mark"] or match["close"]:
            return letter, end
        return None, end

    def text_at(self, text: str, start: int) -> tuple[str | None, int]:
        """The longest option text at exactly this place that ends where a phrase may end."""
        for option, letter in self.texts:
            end = start + len(option)
            if text[start:end].casefold() != option:
                continue
            short = option in FUNCTION_WORDS and not re.match(r"\s*(?:$|[.,;:!)\"'])", text[end : end + 2])
            if not short and TEXT_END.match(text, end):
                return letter, end
        return None, start

    def statements(self, text: str) -> Found | None:
        """Sentences that say what the answer is; None if there are none."""
        chosen: list[tuple[int, str, bool]] = []
        denied: set[str] = set()
        for start, letter, negated, final in [*self.cued(text), *self.verdicts(text)]:
            if letter in ("several", "conflict"):
                return None, letter
            denied |= {letter} if negated else set()
            chosen += [] if negated else [(start, letter, final)]
        chosen.sort()
        if not chosen:
            return (None, "negated") if denied else None
        last, letter, final = chosen[-1]
        others = [start for start, other, _ in chosen if other != letter]
        settled = final and not any(named_final for _, other, named_final in chosen if other != letter)
        if others and not settled and not TURN.search(text, others[-1], last):
            return None, "conflict"
        return (None, "conflict") if letter in denied else (letter, "statement")

    def cued(self, text: str) -> Iterator[tuple[int, str, bool, bool]]:
        """(place, letter, is it denied, is it called final) of "the answer is …" and its like."""
        for cue in CUE.finditer(text):
            before = text[max(0, cue.start() - 80) : cue.start()]
            letter, end = self.read_at(text, cue.end())
            if letter is None or text[end : end + 2].strip()[:1] == "?" or OPPOSITE.search(before):
                continue
            if end == len(text) and re.search(r"\w a$", text[cue.start() : end]):  # "the answer is a": cut off
                continue
            if DOUBT.search(re.split(r"[.;:,!?\n]", before)[-1]) or (
                cue["it"] and not re.search(rf"[\s(]{letter}\b", text[cue.end() : end])
            ):
                continue
            corrected = CORRECTED.match(text, end)
            second, second_end = self.read_at(text, corrected.end()) if corrected else (None, end)
            if second:  # "B, no, C"
                letter, end = second, second_end
            negated = bool(cue["neg"] or cue["nt"] or REJECT_AFTER.match(text, end) or TAKEN_BACK.match(text, end))
            yield cue.start(), letter, negated, bool(cue["final"])
            if negated:
                turn = re.compile(r"[,\s]+but\s(?:rather\s)?").match(text, end)
                letter, _ = self.read_at(text, turn.end()) if turn else (None, end)
                if letter:
                    yield cue.start(), letter, False, False
            elif (join := JOIN.match(text, end)) and self.another(text, join, letter):
                yield cue.start(), "several", False, False
            elif self.another(text, re.compile(r"[\s.,]*").match(text, end), letter, marked=True):
                yield cue.start(), "several", False, False

    def another(self, text: str, join: re.Match, letter: str, *, marked: bool = False) -> bool:
        """Whether a second option follows on the first, as in "A or B" or in a repeated list of options."""
        second, end = self.read_at(text, join.end())
        bare = LETTER.match(text, join.end())
        if bare and bare["letter"] in self.letters and join.group().strip(" ,") and not marked:
            return bare["letter"] != letter  # "A or B could be"
        if marked:
            return bool(re.compile(r"[(\[]?[A-J][).\]:]\s").match(text, join.end())) and second not in (None, letter)
        return second not in (None, letter) and not (
            join.group().strip() == "," and re.compile(r"\s+(?:is|was)\b").match(text, end)
        )

    def verdicts(self, text: str) -> Iterator[tuple[int, str, bool, bool]]:
        """(place, letter, is it denied, False) of "B is correct"."""
        for verdict in VERDICT.finditer(text):
            before = text[max(0, verdict.start() - 500) : verdict.start()]
            sentence = re.split(r"[.;!?\n](?=\s)|\n", before)[-1]
            clause = CLAUSE.split(sentence)[-1].strip()
            lead = LEADING.match(clause)
            claim = sentence if clause.startswith("that ") else lead.group() if lead else ""
            if UNSURE.search(SURE.sub("", claim)):  # "I don't think B is correct"
                continue
            clause = clause[lead.end() :] if lead else clause
            letter = self.whole(re.sub(r"^(?:option|choice|answer|the)\s", "", clause, flags=re.IGNORECASE))
            if letter and text[verdict.end() : verdict.end() + 2].strip()[:1] != "?":
                yield verdict.start(), letter, bool(verdict["neg"]), False
                alike = ALIKE.match(text, verdict.end())
                if alike and self.read_at(text, alike.end())[0] not in (None, letter):  # "B is correct, as is C"
                    yield verdict.start(), "several", False, False

    def mentions(self, text: str) -> Found:
        """Exactly one option named without being denied, in a text that does not decline to answer."""
        named: set[str] = set()
        denied: set[str] = set()
        letters = dict(self.texts)
        for match in self.mention.finditer(text) if self.mention else ():
            before, after = text[max(0, match.start() - 60) : match.start()], text[match.end() : match.end() + 60]
            if before[-1:] == "/" or after[:1] == "/":  # "PET/CT": one of two, whatever the other is
                return None, "several"
            if match.group().casefold() in FUNCTION_WORDS:
                again = named and re.search(r"[.,;:!\n]\s*$", before)  # "No, yes"
                if not (match.start() == 0 or again) or not re.match(r"\s*(?:$|[.,;:!])", after):
                    continue
            elif REJECT_BEFORE.search(before) or REJECT_AFTER.match(after) or REMARK.match(after):
                denied.add(letters[match.group().casefold()])
                continue
            elif re.match(r"[^.!\n]*\?", after) or not (BEFORE.search(before) and TEXT_END.match(text, match.end())):
                continue
            named.add(letters[match.group().casefold()])
        if REFUSAL.search(text):
            return None, "refusal"
        if len(named) == 1:
            return named.pop(), "mention"
        return None, "several" if named else "negated" if denied else "nothing"
