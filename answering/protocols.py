"""What a question's prompts hold: in one turn, in MedXpertQA's two turns, or before the options that are measured.

The released protocols' wording stands in `evaluation.official`; here are their prompts for any model family.
"""

from __future__ import annotations

from collections.abc import Sequence

from answering.decoding import ProtocolName
from datamodules.batch import Example
from evaluation.official import medxpertqa, omnimedvqa
from lightning_modules.families.base import ImageInput
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt

TEXTS: dict[ProtocolName, tuple[str, ...]] = {
    "single": (),
    "two_turn": (
        medxpertqa.SYSTEM,
        medxpertqa.first_turn(medxpertqa.released_question("{question}", ("{option}", "{option}"))) + "{pictures}",
        medxpertqa.second_turn(2),
    ),
    "likelihood": (
        "{pictures}" + omnimedvqa.prefix("{question}"),
        omnimedvqa.continuation("{option}"),
    ),
}
"""What a released protocol says around a question: part of what was asked, so that other words are another protocol."""


def first_prompt(
    policy: Policy,
    example: Example,
    instruction: str,
    protocol: ProtocolName = "single",
    images: Sequence[tuple[str, ImageInput]] | None = None,
) -> Prompt:
    """What a question's first, or only, prompt holds.

    Args:
        policy: whose family writes it.
        example: the question; with options, unless the protocol is `single`.
        instruction: of a guideline, for `single`; the released protocols have their own words.
        protocol: two turns begin with the release's system prompt, then one user turn of stem, options and, after
            them, the pictures. Options are measured after the pictures and plain text, in no chat, as in the release's
            scripts.
        images: (key, preprocessed picture) of the question's pictures, in order; None reads them here.

    Raises:
        BadExampleError: a picture cannot be read.
    """
    plain = policy.prompt(example, instruction, images)
    if protocol == "single":
        return plain
    counts = [item.n_tokens for _, item in plain.images]
    if protocol == "likelihood":
        ids = policy.family.plain_ids(omnimedvqa.prefix(example.question), counts)
    else:
        text = medxpertqa.first_turn(medxpertqa.released_question(example.question, example.options))
        ids = policy.family.prompt_ids(text, counts, system=medxpertqa.SYSTEM, pictures_last=True)
    return with_pictures_of(policy, ids, plain)


def second_prompt(policy: Policy, example: Example, first: Prompt, reply: Sequence[int]) -> Prompt:
    """MedXpertQA's second turn: the chat so far, and the words that ask for the letter; pictures are not shown again.

    Args:
        policy: whose family writes it, see `VisionLanguageFamily.continued_ids`.
        example: the question, with options.
        first: its first prompt.
        reply: tokens of the answer to that.
    """
    trigger = medxpertqa.second_turn(len(example.options))
    return with_pictures_of(policy, policy.family.continued_ids(first.ids, reply, trigger), first)


def with_pictures_of(policy: Policy, ids: Sequence[int], shown: Prompt) -> Prompt:
    """A prompt of these tokens with another's pictures; all but its last token may be shared."""
    positions = policy.family.position_ids(ids, [item.grid for _, item in shown.images])
    return Prompt(tuple(ids), shown.images, positions, len(ids) - 1, shown.question_id)
