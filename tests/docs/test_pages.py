"""Reference: the files themselves. Every link leads somewhere, every page has its place, every example runs.

Run: pytest tests/docs/test_pages.py (slow: the examples are run, and the site is built where MkDocs is installed).
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from configs.load import load
from configs.reference import PAGES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
SPEC = importlib.util.spec_from_file_location("hooks", DOCS / "theme" / "hooks.py")
hooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(hooks)
MKDOCS = Path(os.environ.get("MKDOCS", ROOT / ".venv-docs" / "bin" / "mkdocs"))
HOW_TO_WITHOUT_ONE = {"tensorboard.md", "curation.md", "judging.md", "sweeps.md", "report.md"}
"""Pages whose examples stand in tests of their own commands."""


def nav(entries: object) -> list[str]:
    """Every page of a navigation, in its order."""
    if isinstance(entries, str):
        return [entries]
    inner = entries if isinstance(entries, list) else list(entries.values())
    return [page for entry in inner for page in nav(entry)]


SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
HOW_TO = nav([part["How to"] for part in SITE["nav"] if "How to" in part])
EXAMPLES = ["first_hour.md", *(page for page in HOW_TO if page not in HOW_TO_WITHOUT_ONE)]


def example(page: str) -> str:
    """The one block of a page that a reader can run as it stands."""
    found = re.findall(r"^```bash\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.M | re.S)
    assert len(found) == 1, f"{page}: expected one block of bash, found {len(found)}"
    return found[0]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= 1200


def test_every_page_has_one_place_in_the_navigation_of_mkdocs_yml():
    there = [path.name for path in DOCS.glob("*.md")] + list(hooks.OUTSIDE.values())
    assert sorted(nav(SITE["nav"])) == sorted([*there, *(f"reference/{name}.md" for name in PAGES)])


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page):
    for match in hooks.LINK.finditer(page.read_text("utf-8")):
        path, _, anchor = (match[3] or "").partition("#")
        if match[3] is None or "://" in match[3]:
            continue
        target = (page.parent / path).resolve() if path else page
        if target.parent == DOCS / "reference":
            assert target.stem in PAGES, f"{page.name}: {match[0]}"
            continue
        assert target.exists(), f"{page.name}: {match[0]}"
        assert not anchor or anchor in anchors(target), f"{page.name}: no heading for {match[0]}"


def test_the_readme_names_every_page():
    text = (ROOT / "README.md").read_text("utf-8")
    assert [path.name for path in DOCS.glob("*.md") if f"](docs/{path.name}" not in text] == []


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_example_of_a_page_is_a_good_command(page):
    commands = [line for line in example(page).splitlines() if line.startswith("python ")]
    assert commands
    for words in (shlex.split(line, comments=True) for line in commands):
        if words[1] == "-m":
            place = ROOT / words[2].replace(".", "/")
            assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), words
        else:
            assert words[1:3] == ["train.py", "--config"]
            assert load(words[3], [word for word in words[4:] if not word.startswith("--")]).experiment


@pytest.mark.slow
@pytest.mark.parametrize("page", EXAMPLES)
def test_the_example_of_a_page_runs(page, tmp_path):
    leave = shutil.ignore_patterns("runs", "site", "tests", "assets", ".*", "__pycache__")
    shutil.copytree(ROOT, tmp_path / "copy", ignore=leave)
    (tmp_path / "python").symlink_to(sys.executable)
    given = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    command = ["bash", "-eu", "-c", example(page)]
    done = subprocess.run(command, cwd=tmp_path / "copy", capture_output=True, text=True, env={**os.environ, **given})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_links_and_lists_become_those_of_the_site():
    text = "See [a](docs/training.md#data), ![b](docs/images/c.png), [code](configs/load.py) and `[d](e.md)`.\n"
    assert hooks.linked(text, "index.md") == ("See [a](training.md#data), ![b](images/c.png), code and `[d](e.md)`.\n")
    assert hooks.linked("[x](../DECISIONS.md) [`y`](../merge/run.py)", "claims.md") == "[x](DECISIONS.md) `y`"
    assert hooks.linked("[x](../training.md#a)", "reference/stages.md") == "[x](../training.md#a)"
    assert hooks.spaced("Three:\n- a\n- b\n```\nx:\n- c\n```\n") == "Three:\n\n- a\n- b\n```\nx:\n- c\n```\n"
    assert (
        hooks.sentence("# Title\n\n| a |\n\n`model=X` **takes** a [folder](b.md). More.\n") == "model=X takes a folder."
    )


@pytest.mark.slow
@pytest.mark.skipif(not MKDOCS.exists(), reason="`make docs` installs MkDocs")
def test_the_site_is_built_without_a_warning_and_asks_nobody(tmp_path):
    command = [sys.executable, "-m", "configs.reference", "--out", str(hooks.REFERENCE)]
    subprocess.run(command, cwd=ROOT, check=True)
    built = tmp_path / "site"
    done = subprocess.run(
        [MKDOCS, "build", "--strict", "--site-dir", str(built)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    listed = re.findall(r"\]\(([\w/]+\.md)\)", (built / "llms.txt").read_text("utf-8"))
    assert sorted(listed) == sorted(nav(SITE["nav"]))
    for place in listed:
        assert (built / place).read_text("utf-8").startswith("# ")
        html = (built / place).with_suffix(".html").read_text("utf-8")
        fetched = re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(https?:[^\s\">]+)", html)
        assert fetched == [], place
