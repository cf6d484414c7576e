"""Reference: rows of the pages that were worked out by hand from the classes, and the classes themselves.

Run: pytest tests/configs/test_reference.py.
"""

import re
from dataclasses import dataclass
from typing import Annotated

import pytest

from configs.classes import named, world_of
from configs.reference import cell, meaning, pages, section, settings_of
from guards.ranges import Ranged, between

GBA = "lightning_modules.rl_gba.GBA"


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


def test_a_row_has_type_default_range_and_meaning(made):
    rows = made["experiment.md"].splitlines() + made["rl_parts.md"].splitlines()
    steps = "| `checkpoint_every_steps` | a whole number | `20` | at least 1 | Optimiser steps between two checkpoints"
    assert f"{steps} to go on from. |" in rows
    assert any(row.startswith("| `keep` | one of 'last', 'best' | `last` |  | Which weights") for row in rows)
    assert any(row.startswith("| `lambda_` | a number | `1.1` |") for row in rows)
    assert any(row.startswith("| `max_steps` | a whole number | required to train | at least 1 |") for row in rows)


def test_every_setting_is_explained(made):
    rows = [line for text in made.values() for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 250
    assert [row for row in rows if row.endswith("|  |")] == []
    fragments = re.compile(r"\| (?:Of|As of|As in|As the) [^|]*\|$")
    assert [row for row in rows if fragments.search(row)] == [], "a whole sentence says whose or which it is"


def test_every_link_leads_to_a_section(made):
    anchors = {f"{name}#{anchor}" for name, text in made.items() for anchor in re.findall(r"\{ #(\S+) \}", text)}
    links = {link for text in made.values() for link in re.findall(r"\]\((\w+\.md#[^)]+)\)", text)}
    assert links
    assert links <= anchors


def test_what_a_stage_takes_is_on_its_page_or_behind_its_links(made):
    def known(title: str) -> set[str]:
        text = re.search(rf"^## {title} .*?(?=^## |\Z)", made["stages.md"], re.M | re.S)[0]
        own = set(re.findall(r"^\| `(\w+)`", text, re.M))
        return own.union(
            *(known(name) for name in re.findall(r"settings of \[(\w+)\]|and \[(\w+)\]", text) for name in name if name)
        )

    with world_of(GBA):
        assert known("GBA") == set(settings_of(named(GBA)).__dataclass_fields__)


@dataclass(frozen=True)
class Odd(Ranged):
    """Has `a|b` and <b>.

    And more.
    """

    pipe: str = "a|b"
    """Takes <i> or `x|y`."""
    share: Annotated[float, between(0, 1, open_low=True)] = 0.5
    """Of all."""


@dataclass(frozen=True)
class Further(Odd):
    """Another default."""

    share: float = 0.25


def test_text_cannot_leave_its_cell_and_ranges_are_inherited():
    places = {Odd: f"odd.md#{__name__}.Odd", Further: f"odd.md#{__name__}.Further"}
    text = section(Odd, places)
    assert "Has `a\\|b` and &lt;b>." in text
    assert "| `pipe` | text | `a\\|b` |  | Takes &lt;i> or `x\\|y`. |" in text
    assert settings_of(Further) is Further
    assert "| `share` | a number | `0.25` | (0, 1] | Of all. |" in section(Further, places)
    assert section(Further, places).endswith(f"It also takes the settings of [Odd]({places[Odd]}).\n")
    assert meaning(Further, "pipe") == "Takes <i> or `x|y`."
    assert cell("`<a>` <a>") == "`<a>` &lt;a>"
