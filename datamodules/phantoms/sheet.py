"""Contact sheets of every phantom specialty: `python -m datamodules.phantoms.sheet --out docs/images`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from datamodules.batch import load_image
from datamodules.phantoms.base import PhantomDataModule, phantom_classes
from datamodules.phantoms.drawing import SIZE
from guards.arguments import Parser

CAPTION = 22
"""Pixels under each picture for its answers."""


def sheet(specialty: type[PhantomDataModule], columns: int = 4, rows: int = 3, difficulty: float = 0.3) -> Image.Image:
    """Draw the first patients of a specialty in a table, each with its two answers beneath."""
    config = specialty.Config(n_patients=columns * rows, difficulty=difficulty)
    page = Image.new("RGB", (columns * (SIZE + 8) + 8, rows * (SIZE + CAPTION + 8) + 8), "white")
    pen = ImageDraw.Draw(page)
    patients: dict[str, list] = {}
    for example in specialty(config).examples():
        patients.setdefault(example.patient_id, []).append(example)
    for index, examples in enumerate(patients.values()):
        left, top = 8 + index % columns * (SIZE + 8), 8 + index // columns * (SIZE + CAPTION + 8)
        page.paste(load_image(examples[0].images[0]), (left, top))
        for line, example in enumerate(examples):
            pen.text((left, top + SIZE + 1 + 10 * line), example.answer, fill="black", font_size=9)
    return page


def main() -> None:
    """Write one sheet per specialty."""
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--difficulty", type=float, default=0.3)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for specialty in phantom_classes():
        path = arguments.out / f"phantoms_{specialty.PREFIX}.png"
        page = sheet(specialty, difficulty=arguments.difficulty)
        page.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
