"""One picture of what a model is given: pictures after all reading, prompt and target, some questions of each split."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw, ImageFont

from datamodules.batch import AnswerStyle, BadExampleError, Example, load_image
from datamodules.check.audit import Audit
from datamodules.prompts import prompt_text

PER_SPLIT = 4
"""Questions shown of each split."""
SIDE, GAP, LINE, WIDTH = 256, 12, 15, 1200
"""Of the largest picture, between things, of a line of text, and of the sheet, in pixels."""
LETTERS_ACROSS = 110
MOST_LINES = 14
"""Of a prompt, and of a target."""
INK, FAINT, BAD = (20, 20, 20), (120, 120, 120), (170, 0, 0)
Line = tuple[str, tuple[int, int, int]]


def sheet(audits: Sequence[Audit]) -> Image.Image:
    """The samples of every split of some sets, one below the other."""
    rows = [row(title, example, style) for one in audits for title, example, style in samples(one)]
    page = Image.new("RGB", (WIDTH, sum(part.height + GAP for part in rows) + GAP), "white")
    top = GAP
    for part in rows:
        page.paste(part, (0, top))
        top += part.height + GAP
    return page


def samples(one: Audit) -> Iterator[tuple[str, Example, AnswerStyle]]:
    """Title, question, and what its target answers with."""
    for split, items in one.items.items():
        for item in items[:PER_SPLIT]:
            place = f"{item.file}, row {item.row}" if item.row else item.example.question_id
            yield f"{one.name}/{split}: {place}", item.example, one.answer_with


def row(title: str, example: Example, answer_with: AnswerStyle) -> Image.Image:
    """A question's pictures on the left, as the model's processor gets them; on the right what is asked and taught."""
    lines: list[Line] = [(title, FAINT)]
    pictures = []
    for source in example.images:
        try:
            picture = load_image(source)
        except BadExampleError as error:
            lines += written(str(error), BAD)
            continue
        lines.append((f"picture of {picture.width} x {picture.height} pixels", FAINT))
        picture.thumbnail((SIDE, SIDE))  # smaller ones stand there pixel by pixel
        pictures.append(picture)
    lines += [("prompt:", FAINT), *written(prompt_text(example, ""), INK)]
    name = next(iter(example.reasoning), None)
    if name is not None:
        target = example.trace(name, answer_with)
        lines += [(f"target ({name}):", FAINT), *written(target, INK)]
    height = max(LINE * len(lines), sum(picture.height + GAP for picture in pictures))
    part = Image.new("RGB", (WIDTH, height), "white")
    draw, font, top = ImageDraw.Draw(part), ImageFont.load_default(12), 0
    for picture in pictures:
        part.paste(picture, (GAP, top))
        draw.rectangle((GAP - 1, top - 1, GAP + picture.width, top + picture.height), outline=FAINT)
        top += picture.height + GAP
    for number, (text, ink) in enumerate(lines):
        draw.text((SIDE + 2 * GAP, LINE * number), text, fill=ink, font=font)
    return part


def written(text: str, ink: tuple[int, int, int]) -> list[Line]:
    """A text in lines; what cannot be printed becomes visible, and what is left out is said."""
    visible = "".join(c if c.isprintable() or c == "\n" else "␣" for c in text[:8000])
    parts = [part for line in visible.splitlines() for part in textwrap.wrap(line, LETTERS_ACROSS) or [""]]
    rest = f"… and {len(text)} characters in all"
    return [(part, ink) for part in parts[:MOST_LINES]] + ([(rest, FAINT)] if len(parts) > MOST_LINES else [])
