"""Where the thinking of a completion ends, by the tags of the model families that publish theirs."""

from __future__ import annotations

import re

REGION = 20_000
"""Characters from the end of the completion that a lenient reading looks at; bounds the time."""

# Bounded everywhere: unbounded runs would make a megabyte of "<<<<" or "<    " quadratic.
HARD, SOFT = r"(?:seed:)?(?:think|thinking|thoughts?)\b", r"(?:reasoning|reason|analysis|rationale|explanation)\b"
TAGS = re.compile(
    rf"(?P<end><[ /]{{0,4}}/[ /]{{0,4}}{HARD}[^<>]{{0,64}}>?|<\|end_of_thought\|>|◁/think▷|<\|/think(?:ing)?\|>"
    r"|\[/think\]|<unused95>|<\|channel\|>\s?final\b[^<>]{0,64}<\|message\|>|^#{1,4}\sFinal\sResponse\b)"
    rf"|(?P<open><[ ]{{0,4}}{HARD}[^<>]{{0,64}}>?|<\|begin_of_thought\|>|◁think▷|<\|think(?:ing)?\|>"
    r"|\[think\]|<unused94>|<\|channel\|>\s?(?:analysis|commentary)\b[^<>]{0,64}<\|message\|>|\A\s{0,8}#{1,4}\sThinking\b)"
    rf"|(?P<soft_end><[ ]{{0,4}}/[ ]{{0,4}}{SOFT}[^<>]{{0,64}}>)|(?P<soft_open><[ ]{{0,4}}{SOFT}[^<>]{{0,64}}>)",
    re.IGNORECASE | re.MULTILINE,
)
ANSWERED = re.compile(r"</answer>", re.IGNORECASE)


def after_thinking(text: str) -> str | None:
    """What a completion says after its thinking, at most its last 20 000 characters; None if the thinking never ends.

    A region that had to be cut begins with an ellipsis, so that its first words are not taken for a whole answer.
    Tags such as `<reasoning>` behind an answer block hold an explanation and end nothing.
    """
    answered = ANSWERED.search(text)
    stop = answered.end() if answered else len(text)
    opened, end = False, 0
    for tag in TAGS.finditer(text):
        kind = tag.lastgroup
        if kind == "end" or (kind == "soft_end" and tag.start() < stop):
            end = tag.end()
        opened |= kind == "open" or (kind == "soft_open" and tag.start() < stop)
    if opened and not end:
        return None
    region = text[end:]
    return region if len(region) <= REGION else "… " + region[-REGION:].partition(" ")[2]
