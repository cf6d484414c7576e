"""A resolved configuration for readers, and what differs between two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

import yaml

from configs.check import Checker, as_plain
from configs.schema import Experiment, Fit
from configs.tree import COMMAND_LINE

if TYPE_CHECKING:
    from configs.load import Loaded

HOW_IT_IS_ASKED = (
    *("key_variable", "served_as", "image_tokens", "concurrency", "timeout_s", "retries", "backoff_s", "max_wait_s"),
    *("max_reply_bytes", "max_requests", "max_tokens", "max_cost", "price_prompt", "price_completion"),
    *("give_up_after", "limit_field"),
)
"""Settings of `endpoints.endpoint.Endpoint` that decide no reply: a budget that is spent can be raised."""
KEPT_IN = "replies"
"""Setting of judges behind an endpoint: the folder in which replies are kept."""
FREE_TO_CHANGE = (
    *("only", "trust", "workers", "threads", "overwrite", "runs_dir", "description", "callbacks", "feature_cache"),
    "logger",
    "launcher",
    *("adapters", "trainer.log_every_n_steps", "trainer.profiler"),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    *("fit.checkpoint_every_steps", "fit.checkpoint_every_minutes", "fit.memory"),
    *(f"model.init_args.{name}" for name in HOW_IT_IS_ASKED),
)
"""Settings that may differ when a run is resumed: they say where and how fast, or what is made of finished experts,
which is kept by content and made anew where it differs. None of them changes an expert, but for the rounding of
sums that several threads, devices or pieces add up."""


def flattened(whole: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value; empty mappings and lists are values."""
    found = {}
    for name, value in whole.items():
        key = f"{prefix}.{name}" if prefix else name
        found.update(flattened(value, key) if isinstance(value, Mapping) and value else {key: value})
    return found


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
    """The resolved configuration as YAML, each value with its origin as a trailing comment.

    What the command line sets in required experiments follows as comments, in the form in which it is written there.
    """
    lines = [(line, loaded.origins[key] if key else "") for line, key in lines_of(loaded.resolved, "", 0)]
    for called, one in loaded.beneath.items():
        values = flattened(one.resolved)
        given = {key: origin for key, origin in one.origins.items() if origin.startswith(COMMAND_LINE)}
        lines += [(f"# {called}:{key}={flow(values[key])}", origin) for key, origin in given.items()]
    width = min(max(len(line) for line, _ in lines), 72)
    return "\n".join(f"{line:<{width}}  # {origin}" if origin else line for line, origin in lines)


ABSENT = object()
"""Stands in for a setting that one of two configurations does not have."""


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Dotted keys in which two resolved configurations differ, with both values in words.

    Settings that a resumed run may change are left out.

    Examples:
        >>> changed_settings({"seed": 0, "only": []}, {"seed": 1, "only": ["pediatrics"]})
        {'seed': 'made with 0, asked for is 1'}
    """
    before, after = flattened(old), flattened(new)
    keys = [key for key in dict.fromkeys([*before, *after]) if not may_change(key)]
    changed = {key: (before.get(key, ABSENT), after.get(key, ABSENT)) for key in keys}
    changed = {key: values for key, values in changed.items() if deciding(values[0]) != deciding(values[1])}
    return {
        key: both_values(*values)
        for key, values in changed.items()
        if not any(other.startswith(f"{key}.") for other in changed)
    }


def completed(before: Mapping[str, Any], trust: Sequence[str] = ()) -> dict[str, Any]:
    """What an earlier version resolved, with settings that did not exist then at their defaults.

    A component that today's class does not take as it stands, or whose class may not be imported here, is left as it
    was, and so counts as changed.
    """
    absent = {f.name: f.default for f in fields(Experiment) if f.default is not MISSING and f.name not in before}
    whole = absent | dict(before)
    whole["fit"] = as_plain(Fit()) | (whole.get("fit") or {})

    def refilled(component: Any) -> Any:
        try:
            return Checker(lambda *fault: None, trust).with_defaults(component)
        except Exception:  # made by another version: whatever is wrong with it, it is not what is asked for
            return component

    for key in ("model", "module", "replay"):
        whole[key] = refilled(whole.get(key))
    for key in ("specialties", "callbacks"):
        whole[key] = {name: refilled(component) for name, component in (whole.get(key) or {}).items()}
    return whole


def may_change(key: str) -> bool:
    """Whether a setting may differ when a run is resumed; loader workers change no batch."""
    return bool({key, key.partition(".")[0]} & {*FREE_TO_CHANGE}) or key.rpartition(".")[2] == "num_workers"


def deciding(value: Any) -> Any:
    """What of a setting decides results: of an endpoint in a list of components, not how and how fast it is asked.

    Examples:
        >>> deciding([{"base_url": "http://a", "model": "b", "retries": 3, "replies": "kept"}])
        [{'base_url': 'http://a', 'model': 'b'}]
    """
    if isinstance(value, list):
        return [deciding(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    free = (*HOW_IT_IS_ASKED, KEPT_IN) if "base_url" in value else ()
    return {name: deciding(item) for name, item in value.items() if name not in free}


def both_values(before: Any, after: Any) -> str:
    """An old and a new value in words, long ones shortened from their first difference on."""
    texts = ["no such setting" if value is ABSENT else flow(value) for value in (before, after)]
    alike = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    old, new = (shortened(text, max(0, alike - 20)) for text in texts)
    return f"made with {old}, asked for is {new}"


def shortened(text: str, start: int, length: int = 80) -> str:
    """At most `length` characters of a text, around where it begins to differ from another.

    Examples:
        >>> shortened("abcdefghij", 4, length=5)
        '… efghi …'
    """
    if len(text) <= length:
        return text
    start = min(start, len(text) - length)
    end = start + length
    return f"{'… ' if start else ''}{text[start:end]}{' …' if end < len(text) else ''}"
