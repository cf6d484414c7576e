"""The folder of a report: written aside and put in its place whole; each picture once, named by its content."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from PIL import Image

from datamodules.batch import ImageSource, load_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INDEX = "index.html"
MARK = '<meta name="generator" content="evaluation.report">'
"""Stands in every page, and so tells a folder that may be replaced."""


class Folder:
    """Collects files; they are at their place when the `with` block ends without an error."""

    def __init__(self, place: Path, side: int) -> None:
        """Check that nothing else would be lost.

        Args:
            place: of the report.
            side: the longest side of a picture, in pixels; larger ones are scaled down.

        Raises:
            ValueError: the place holds something that is no report.
        """
        self.place, self.side = place, side
        self.aside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        self.pictures: set[str] = set()
        if place.exists() and not (place.is_dir() and (not any(place.iterdir()) or is_report(place))):
            raise ValueError(f"--out {place} is there and is no report; choose a new folder, or empty this one")

    def __enter__(self) -> Self:
        shutil.rmtree(self.aside, ignore_errors=True)
        self.aside.mkdir(parents=True)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                if self.place.exists():
                    shutil.rmtree(self.place)
                os.replace(self.aside, self.place)
        finally:
            shutil.rmtree(self.aside, ignore_errors=True)

    def page(self, name: str, text: str) -> None:
        """Write a page; halves of surrogate pairs become backslash escapes."""
        (self.aside / name).write_text(text, encoding="utf-8", errors="backslashreplace")

    def figure(self, name: str, drawn: Figure) -> str:
        """Write a figure; returns its address in the pages."""
        import matplotlib

        (self.aside / "figures").mkdir(exist_ok=True)
        with matplotlib.rc_context({"svg.hashsalt": name}):  # the same numbers give the same file
            drawn.savefig(self.aside / "figures" / name, metadata={"Date": None})
        return f"figures/{name}"

    def picture(self, source: ImageSource) -> str:
        """Write a picture as a viewer shows it, without what its file says besides; returns its name.

        Raises:
            BadExampleError: it cannot be read.
        """
        shown = load_image(source)
        shown.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        shown.save(stream, "JPEG", quality=90, subsampling=0)
        name = hashlib.sha256(stream.getvalue()).hexdigest()[:32] + ".jpg"
        if name not in self.pictures:
            self.pictures.add(name)
            (self.aside / "pictures").mkdir(exist_ok=True)
            (self.aside / "pictures" / name).write_bytes(stream.getvalue())
        return name

    @property
    def mebibytes(self) -> float:
        """What has been written so far."""
        return sum(file.stat().st_size for file in self.aside.rglob("*") if file.is_file()) / 2**20


def is_report(place: Path) -> bool:
    """Whether a folder holds a report of ours."""
    try:
        return MARK in (place / INDEX).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
