"""What MkDocs does besides: pages that lie outside docs/, generated ones, and everything as Markdown for machines.

The README is the site's first page. Reference pages are read from .docs/reference, where `python -m configs.reference`
has put them. Beside every page stands its Markdown, and llms.txt lists all of them with a sentence each.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / ".docs" / "reference"
OUTSIDE = {"README.md": "index.md", **{name: name for name in ("CONTRIBUTING.md", "DECISIONS.md", "CHANGELOG.md")}}
"""File of the project's root -> page of the site."""
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)|^```.*?^```|`[^`\n]*`", re.M | re.S)
"""A link, whose text may hold code or a picture; or code by itself, in which nothing is a link."""
BEGINS = re.compile(r"[-*] |\d+\. |\|")
"""What begins a list or a table."""
NOT_PROSE = ("#", "```", "|", "!", "- ", " ", "1. ")
"""What paragraphs begin with that are headings, code, tables, pictures or lists."""
KEPT: dict[str, tuple[str, str]] = {}
"""Page -> title and Markdown, while a site is built."""


def placed(target: str, page: str) -> str | None:
    """Where a link of a page leads in the site; None for what the site does not have.

    Args:
        target: as the file in the repository has it, from its own folder.
        page: the page of the site that the file became.

    Examples:
        >>> placed("docs/training.md#data", "index.md"), placed("../DECISIONS.md", "claims.md")
        ('training.md#data', 'DECISIONS.md')
        >>> placed("../evaluation/predictions.py", "evaluation.md") is None
        True
    """
    path, mark, anchor = target.partition("#")
    if "://" in target or not path:
        return target
    folder = "" if page in OUTSIDE.values() else posixpath.join("docs", posixpath.dirname(page))
    path = posixpath.normpath(posixpath.join(folder, path))
    inside = OUTSIDE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else "")
    return posixpath.relpath(inside, posixpath.dirname(page) or ".") + mark + anchor if inside else None


def linked(text: str, page: str) -> str:
    """Markdown with its links as the site has them; a link to a file of the code becomes its text."""

    def replaced(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        if target is None:
            return match[0]
        if picture == "" and "](" in words:  # a picture that is a link
            words = linked(words, page)
        place = placed(target, page)
        return words if place is None else f"{picture}[{words}]({place})"

    return LINK.sub(replaced, text)


def spaced(text: str) -> str:
    """Markdown with an empty line before each list and table, which Python's Markdown wants and GitHub's does not."""
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        before = lines[-1] if lines else ""
        begins = BEGINS.match(line) and before and not BEGINS.match(before) and not before.startswith((" ", "#"))
        if begins and not fenced:
            lines.append("")
        lines.append(line)
    return "\n".join(lines) + "\n"


def sentence(text: str) -> str:
    """The first sentence of a page's own text, without marks."""
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if not part.startswith(NOT_PROSE)]
    words = re.sub(r"[*`]|\]\([^)]*\)|\[", "", " ".join(next(filter(str.strip, paragraphs), "").split()))
    return re.split(r"(?<=[.?!]) ", words)[0]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what does not lie in docs/."""
    from mkdocs.exceptions import PluginError
    from mkdocs.structure.files import File

    made = sorted(REFERENCE.glob("*.md"))
    if not made:
        raise PluginError(f"{REFERENCE} has no pages; make docs makes them by `python -m configs.reference --out`")
    for place, path in [
        *((page, ROOT / name) for name, page in OUTSIDE.items()),
        *((f"reference/{p.name}", p) for p in made),
    ]:
        head = "---\nhide: [navigation, toc]\n---\n\n" if place == "index.md" else ""
        files.append(File.generated(config, place, content=head + path.read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Rewrite a page for the site, and keep it."""
    place = page.file.src_uri
    text = spaced(linked(markdown, place))
    KEPT[place] = (str(page.title), text)
    return text


def on_post_build(config: MkDocsConfig, **_: Any) -> None:
    """Write every page's Markdown beside it, and their index."""
    site = Path(config.site_dir)
    lines = [f"# {config.site_name}", "", "Every page as Markdown.", ""]
    for place, (title, text) in sorted(KEPT.items(), key=lambda item: (item[0] != "index.md", item[0])):
        (site / place).parent.mkdir(parents=True, exist_ok=True)
        (site / place).write_text(text, "utf-8")
        lines.append(f"- [{title}]({place}): {sentence(text)}")
    (site / "llms.txt").write_text("\n".join(lines) + "\n", "utf-8")
