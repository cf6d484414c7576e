"""The last resort of the lenient reading: a text that settles nothing, but names one option alone and denies it not."""

from __future__ import annotations

import re

from evaluation.marks import BOTH, SHORT, TEXT, option_of
from evaluation.rules import END, REFUSAL

NAMED = re.compile(f"[{TEXT}-\ue02f]")
BOTH_KINDS = re.compile(f"[{BOTH}-\ue02f]")
BEHIND = re.compile(END, re.IGNORECASE)
BEFORE = re.compile(
    r"(?:^|[.,;:!?(\"'\n-]|\b(?:is|are|was|be|with|of|shows?|suggests?|indicates?|measures?|represents?|confirms?|"
    r"demonstrates?|reveals?|diagnosis|likely|probably|definitely|has|have|the|choose|say|favou?rs?|or|and|but|(?-i:an?)|(?:^|[.\n]\s?)A))\s*$",
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
    r"opposite|doubt|unlikely|unusual|hardly|negative|no way|if|could|would|may|might|consider|considered|tempted)"
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
    r"(?:a|one|another) (?:possibility|distractor|trap|tempting)|no longer|considered but)\b"
    r"|,\s(?:except|but)\b|(?:项)?(?:的)?(?:可以排除|可排除|较少见|少见|可能性较?小|不|错误)",
    re.IGNORECASE,
)
REMARK = re.compile(
    r"(?:\s?[:(–—-]\s?|,\swhich\s(?:is|was)\s)(?:no|not|absent|negative|unlikely|excluded|ruled out)\b", re.IGNORECASE
)


def mentioned(text: str, options: tuple[str, ...]) -> tuple[int | None, str]:
    """The only option named without being denied, in a marked text that does not decline to answer.

    Args:
        text: as `marks.Marker` gives it.
        options: their texts.

    Returns:
        (index, "mention"), or (None, reason).
    """
    if len({option_of(character) for character in BOTH_KINDS.findall(text)}) > 1:
        return None, "several"
    named: set[int] = set()
    denied: set[int] = set()
    for match in NAMED.finditer(text):
        before, after = text[max(0, match.start() - 60) : match.start()], text[match.end() : match.end() + 60]
        index = option_of(match[0])
        if before[-1:] == "/" or after[:1] == "/":  # "PET/CT": one of two, whatever the other is
            return None, "several"
        if options[index].casefold() in SHORT:
            again = named and re.search(r"[.,;:!\n]\s*$", before)  # "No, yes"
            if not (match.start() == 0 or again) or not re.match(r"\s*(?:$|[.,;:!])", after):
                continue
        elif REJECT_BEFORE.search(before) or REJECT_AFTER.match(after) or REMARK.match(after):
            denied.add(index)
            continue
        elif re.match(r"[^.!\n]*\?", after) or not (BEFORE.search(before) and BEHIND.match(text, match.end())):
            continue
        named.add(index)
    if REFUSAL.search(text):
        return None, "refusal"
    if len(named) == 1:
        return named.pop(), "mention"
    return None, "several" if named else "negated" if denied else "nothing"
