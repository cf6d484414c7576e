"""A made folder in the shape of the release, without any real record: `python -m judging.made FOLDER [--cases N]`.

Inputs are JSON lines beside picture files, which need no further package; physicians' choices are drawn so that the
longer answer is preferred in 60 of 100, and dimensions of one case agree in most.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from guards.arguments import Parser
from judging.cases import DIMENSIONS, ORGANS, SIDES, other

FINDINGS = ("a round shadow near the edge", "no abnormal sign", "two small bright spots", "a dark line across")
DEPARTMENTS = ("radiology", "surgery", "internal medicine")


def row(organ: str, number: int, draw: random.Random) -> tuple[dict, dict]:
    """One case: the row of its inputs and that of its ground truth."""
    first, second = draw.sample(FINDINGS, 2)
    texts = [f"The picture shows {finding}." for finding in (first, second)]
    longer = draw.randrange(2)
    texts[longer] += " It is seen best in the upper half." * draw.randint(1, 3)
    liked = SIDES[longer] if draw.random() < 0.6 else other(SIDES[longer])
    human = {name: liked if draw.random() < 0.85 else other(liked) for name in DIMENSIONS}
    name = f"{organ}_{number}"
    inputs = {
        "image": f"{name}.png",
        "question": f"What does picture {number} of the {organ.replace('_', ' ')} show?",
        "answer1_text": texts[0],
        "answer2_text": texts[1],
        "question_id": name,
        "dataset": "made",
        "modality_type": organ,
        "question_type": draw.choice(("finding", "location")),
        "image_id": name,
        "body_part": organ,
        "department": draw.choice(DEPARTMENTS),
        "modality": draw.choice(("X-ray", "CT")),
    }
    return inputs, {"question_id": name, "human_answer": human}


def write_made(root: Path, cases: int = 6, seed: int = 0, organs: Sequence[str] = ORGANS) -> Path:
    """Write a folder in the release's shape.

    Args:
        root: folder to make.
        cases: per organ.
        seed: of everything that is drawn.
        organs: whose files are written.

    Returns:
        The folder.
    """
    folder = root / "pair_gt_all"
    (folder / "parquet").mkdir(parents=True, exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    for organ in organs:
        draw = random.Random(f"{seed}/{organ}")
        pairs = [row(organ, number, draw) for number in range(cases)]
        for path, rows in zip((f"parquet/{organ}.jsonl", f"{organ}.jsonl"), zip(*pairs, strict=True), strict=True):
            (folder / path).write_text("".join(json.dumps(line) + "\n" for line in rows), encoding="utf-8")
        for inputs, _ in pairs:
            picture = Image.new("RGB", (32, 32), (draw.randrange(90), draw.randrange(90), draw.randrange(90)))
            x, y = draw.randrange(20), draw.randrange(20)
            ImageDraw.Draw(picture).ellipse((x, y, x + 9, y + 9), fill=(200, 200, draw.randrange(256)))
            picture.save(folder / "images" / inputs["image"])
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = Parser(prog="python -m judging.made", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=6, help="per organ")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.cases < 1:
        parser.error(f"--cases must be at least 1, got {given.cases}")
    write_made(given.folder, given.cases, given.seed)
    print(f"written: {given.folder}, {given.cases} cases for each of {len(ORGANS)} organs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
