"""A benchmark's result as a Markdown table."""

from __future__ import annotations

from typing import Any


def markdown(result: dict[str, Any]) -> str:
    """One table: CPU seconds, memory, phases, counts, fixed batch; a ratio below 1 says that ours takes less.

    Args:
        result: as the drivers write it.
    """
    title = f"{result['benchmark']}, {result['size']}, {result['work']}: medians per step, one thread"
    lines = table(growth_rows(result)) if result["work"] == "growth" else table(side_by_side(result))
    return "\n".join([f"### {title}", "", *lines, "", versions(result["versions"]), ""])


def side_by_side(result: dict[str, Any]) -> list[list[str]]:
    """Rows of ours beside the peer's, the header first."""
    ours, peer = result["ours"], result["peer"]
    rows = [["per step", "ours", "TRL", "ours / TRL"]]
    rows.append(compared("CPU seconds", ours["cpu_s"], peer["cpu_s"]))
    rows.append(compared("peak memory added, MiB", ours["peak_added_mib"], peer["peak_added_mib"]))
    for group, label in (("phases", "CPU seconds, {}"), ("counts", "{}"), ("values", "mean {}")):
        for name in {**ours[group], **peer[group]}:
            rows.append(compared(label.format(name.replace("_", " ")), ours[group].get(name), peer[group].get(name)))
    for name, value in result["fixed_batch"]["ours"].items():
        other, off = result["fixed_batch"]["peer"][name], result["fixed_batch"]["difference"][name]
        rows.append([f"fixed batch: {name.replace('_', ' ')}", f"{value:.7g}", f"{other:.7g}", f"difference {off:.1e}"])
    return rows


def growth_rows(result: dict[str, Any]) -> list[list[str]]:
    """Rows over the group size, the header first."""
    sizes = list(result["ours"])
    rows = [["per step", *(f"G = {size}" for size in sizes), "last / first"]]
    for label, of in (("CPU seconds", "cpu_s"), ("peak memory added, MiB", "peak_added_mib")):
        values = [result["ours"][size][of] for size in sizes]
        rows.append([label, *map(number, values), number(values[-1] / values[0])])
    for name in result["ours"][sizes[0]]["counts"]:
        values = [result["ours"][size]["counts"][name] for size in sizes]
        rows.append([name.replace("_", " "), *map(number, values), number(values[-1] / values[0])])
    return rows


def compared(label: str, ours: float | None, peer: float | None) -> list[str]:
    """One row with its ratio where both sides have the number."""
    ratio = number(ours / peer) if ours is not None and peer else ""
    return [label, number(ours), number(peer), ratio]


def number(value: float | None) -> str:
    """Three digits behind the point for small numbers, none for large; empty if unknown."""
    if value is None:
        return ""
    if abs(value) >= 100 or value == 0:
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.1e}"


def table(rows: list[list[str]]) -> list[str]:
    """Markdown lines; all columns but the first are aligned on the right."""
    first, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return [first, f"|---|{'---:|' * (len(rows[0]) - 1)}", *rest]


def versions(found: dict[str, dict[str, str]]) -> str:
    """One line per side."""
    return "\n".join(
        f"{side}: " + ", ".join(f"{name} {number}" for name, number in of.items()) for side, of in found.items()
    )
