"""A resolved configuration for readers, and what differs between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from configs.resolve import flattened

if TYPE_CHECKING:
    from configs.load import Loaded

FREE_TO_CHANGE = (
    *("only", "workers", "overwrite", "runs_dir", "description", "callbacks", "feature_cache", "adapters"),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    *("fit.checkpoint_every_steps", "fit.checkpoint_every_minutes"),
)
"""Settings that may differ when a run is resumed: they say where and how fast, or what is made of finished experts,
which is kept by content and made anew where it differs. None of them changes an expert, but for the rounding of
sums that several devices add up."""


def flow(value: Any) -> str:
    """A value as one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()


def lines_of(values: Mapping[str, Any], prefix: str, depth: int) -> list[tuple[str, str]]:
    """(line of YAML, dotted key) per entry; the key is empty for a line that only opens a mapping."""
    found = []
    for name, value in values.items():
        key, head = f"{prefix}.{name}" if prefix else name, f"{'  ' * depth}{flow(name)}:"
        if isinstance(value, Mapping) and value:
            found += [(head, ""), *lines_of(value, key, depth + 1)]
        else:
            found.append((f"{head} {flow(value)}", key))
    return found


def format_resolved(loaded: Loaded) -> str:
    """The resolved configuration as YAML, each value with its origin as a trailing comment."""
    lines = lines_of(loaded.resolved, "", 0)
    width = min(max(len(line) for line, _ in lines), 72)
    return "\n".join(f"{line:<{width}}  # {loaded.origins[key]}" if key else line for line, key in lines)


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted keys in which two resolved configurations differ, but for those that a resumed run may change.

    Examples:
        >>> changed_settings({"seed": 0, "only": []}, {"seed": 1, "only": ["pediatrics"]})
        ['seed']
    """
    before, after = flattened(old), flattened(new)
    absent = object()
    keys = [key for key in dict.fromkeys([*before, *after]) if not {key, key.partition(".")[0]} & {*FREE_TO_CHANGE}]
    changed = [key for key in keys if before.get(key, absent) != after.get(key, absent)]
    return [key for key in changed if not any(other.startswith(f"{key}.") for other in changed)]
