"""Lines as Markdown tables, ready for docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.report import number, table

PARTS = ("load", "sft", "sft checkpointed", "gba", "stock", "nf4 sft checkpointed")
"""Parts whose lines are of one form: seconds, memory, phases."""
LAUNCHES = ("operators", "kernels", "graphs", "copies", "waits")
"""Of the processor, per step of decoding."""
MOVED = ("weights", "factors", "cache", "logits")
"""What a step of decoding moves."""
PHASES = ("rollout", "scoring", "backward", "optimizer")


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """What was measured, and beneath what was not, with its reason.

    Args:
        lines: as `Lines` writes them, at least one.
    """
    facts = lines[0]
    dirty = " with changes" if facts["dirty"] else ""
    versions = f"torch {facts['torch']}, transformers {facts['transformers']}, commit {facts['commit']}{dirty}"
    done = [line for line in lines if line["repeats"]]
    blocks = [f"{facts['card']}, {versions}.", *(block for block in tables_of(done) if block)]
    missed = [f"- {line['part']}, {line['size']}: {reason_of(line)}" for line in lines if not line["repeats"]]
    return "\n\n".join([*blocks, *(["Not measured:\n" + "\n".join(missed)] if missed else [])]) + "\n"


def tables_of(done: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Each kind of measurement as a table; empty where there is none."""
    steps = [line for line in done if line["part"] in PARTS]
    yield rows_of(
        ["part", "size", "seconds", "peak GiB", *PHASES, "repeats"],
        [
            [
                *(line["part"], line["size"], number(line["seconds"]), number(line["peak_gib"])),
                *(number(line.get("phases", {}).get(phase)) for phase in PHASES),
                str(line["repeats"]),
            ]
            for line in steps
        ],
    )
    yield rows_of(
        ["size", "ours / stock, seconds", "gradient: cosine", "norm, stock / ours"],
        [
            [line["size"], *(f"{line[n]:.5g}" for n in ("ours_over_stock", "gradient_cosine", "gradient_norm_ratio"))]
            for line in done
            if line["part"] == "stock"
        ],
    )
    yield rows_of(
        ["size", "rows", "tokens/s", "ms a step", *LAUNCHES, *(f"{name}, MB" for name in MOVED), "GB/s"],
        [
            [
                *(line["size"], str(line["rows"]), number(line["tokens_per_s"]), number(line["ms_per_token"])),
                *(number(line["per_token"][name]) for name in LAUNCHES),
                *(number(line["bytes_per_step"][name] / 1e6) for name in MOVED),
                number(line["gb_per_s"]),
            ]
            for line in done
            if line["part"] == "decode"
        ],
    )
    yield rows_of(
        ["size", "merge", "layers", "s a layer", "s a layer, processor", "threads", "largest difference"],
        [
            [
                *(line["size"], line["method"], str(line["layers"]), f"{line['s_per_layer']:.4g}"),
                *(f"{line['processor_s_per_layer']:.4g}", str(line["processor_threads"])),
                f"{line['largest_difference']:.1e}",
            ]
            for line in done
            if line["part"] == "merge"
        ],
    )
    yield rows_of(
        ["part", "size", "estimated GiB", "measured GiB", "ratio"],
        [
            [part, line["size"], *(f"{found[name]:.4g}" for name in ("estimated_gib", "measured_gib", "ratio"))]
            for line in done
            if line["part"] == "estimate" and line["of_a_card"]
            for part, found in line["parts"].items()
        ],
    )
    tests = [line for line in done if line["part"] == "tests"]
    yield "\n".join(
        f"GPU tests: {', '.join(f'{line[n]} {n}' for n in ('passed', 'failed', 'skipped', 'error') if n in line)} "
        f"in {number(line['seconds'])} s."
        for line in tests
    )


def rows_of(head: list[str], rows: list[list[str]]) -> str:
    """A table, or nothing where there are no rows."""
    return "\n".join(table([head, *rows])) if rows else ""


def reason_of(line: Mapping[str, Any]) -> str:
    """Why a part was not measured."""
    return line.get("skipped") or line.get("failed") or "unknown"
