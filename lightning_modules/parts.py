"""The parts of an objective: classes that a configuration names, each with a `Config` of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from configs.build import build
from configs.schema import Checked, Component
from lightning_modules.rewards.guidelines import guideline_faults

Interface = TypeVar("Interface")
GuidelineNames = Annotated[tuple[str, ...], Checked(guideline_faults)]
"""Names or paths of guidelines, whose files a configuration's check reads."""


def part(spec: Mapping[str, Any], interface: type[Interface], slot: str) -> Interface:
    """Build a part from its class path and options.

    Args:
        spec: `class_path`, and `init_args` where its defaults are not wanted.
        interface: what the slot takes.
        slot: its name, for the message.

    Raises:
        ValueError: the class is not of the slot's kind.
        ImportError: there is no such class.
    """
    built = build(Component(str(spec["class_path"]), dict(spec.get("init_args") or {})))
    if not isinstance(built, interface):
        raise ValueError(f"{slot}: {spec['class_path']} is no {interface.__name__}; see {interface.__module__}")
    return built
