"""What a merge would do and need, before anything is computed."""

from __future__ import annotations

from typing import Any

from merge.grams import passes
from merge.methods.interface import BLOCK_ENTRIES, EntryMethod
from merge.recipe import Recipe
from merge.run import one_thread
from merge.sources import open_sources
from merge.truncation import parse_rank

MIB = 2**20
ALLOWANCE_MIB = 32
"""What libraries and the allocator take besides; measured at ranks 64 and 256, where counted bytes were half short."""


def plan(recipe: Recipe) -> dict[str, Any]:
    """Open and check the sources of a recipe, and tell what its merge needs.

    Returns:
        experts, modules, the largest module's shape, rank of the experts together, `memory_mib` (an upper estimate of
        what is held at once) and `output_mib` (an upper bound: a rank given as a share of energy may be lower); and
        `grams`, see `collection`.

    Raises:
        AdapterError: a source is refused.
        ValueError: modules, weights or rank do not fit.
    """
    wish = parse_rank(recipe.rank)
    with one_thread():
        experts = open_sources(recipe).experts
        shapes = {name: experts.factors(name)[0].shape for name in experts.modules}
        ranks = {name: [f.rank for f in experts.factors(name)] for name in experts.modules}
    largest = max(shapes, key=lambda name: shapes[name][0] * shapes[name][1])
    kept = {
        name: min(*shapes[name], wish if isinstance(wish, int) else max(of) if wish == "max" else sum(of))
        for name, of in ranks.items()
    }
    return {
        "experts": len(experts),
        "modules": len(shapes),
        "largest": (largest, shapes[largest]),
        "rank": max(map(sum, ranks.values())),
        "memory_mib": ALLOWANCE_MIB
        + 1.5 * max(held(recipe, shapes[n], sum(ranks[n]), kept[n], len(experts)) for n in shapes) / MIB,
        "output_mib": sum(4 * kept[name] * sum(shapes[name]) for name in shapes) / MIB,
        "grams": collection(recipe, {name: n for name, (_, n) in shapes.items()}),
    }


def collection(recipe: Recipe, sizes: dict[str, int]) -> dict[str, Any] | None:
    """What collecting one expert's Gram matrices takes, where the recipe's live model has to.

    Returns:
        passes over the samples, `rows` of them, `memory_mib` beside the model and its activations, and `output_mib` on
        disk; None where nothing is collected.
    """
    if recipe.live is None or recipe.grams or not recipe.method.needs_grams:
        return None
    groups = passes(sizes, recipe.live.gram_mib)
    held_at_once = (sum(8 * sizes[name] ** 2 for name in names) for names in groups)
    return {
        "passes": len(groups),
        "rows": recipe.live.rows,
        # Beside the sums, one matrix in fp32 that is made, and the one before it.
        "memory_mib": (max(held_at_once) + 2 * 4 * max(sizes.values()) ** 2) / MIB,
        "output_mib": sum(4 * n * n for n in sizes.values()) / MIB,
    }


def held(recipe: Recipe, shape: tuple[int, int], joint: int, kept: int, experts: int) -> int:
    """Bytes that one module takes at once: factors and their bases, and what the method adds."""
    m, n = shape
    low = min(m, n)
    R = min(joint, m + n)
    size = 4 * 2 * (m + n) * joint + 8 * (m + n) * (kept + low.bit_length()) + 8 * R * R * (experts + 12)
    if recipe.method.needs_grams:
        size += 8 * n * n * 4
    if isinstance(recipe.method, EntryMethod):
        size += 4 * m * n + 4 * BLOCK_ENTRIES * experts * 4
        # At a rank that leaves little out the dense update is decomposed whole, in fp64.
        size += 8 * (m * n + 3 * low * low) if 2 * kept > joint or joint > low // 4 else 8 * 2 * (m + n) * kept
    return size


def told(found: dict[str, Any]) -> str:
    """The plan in words."""
    name, (m, n) = found["largest"]
    lines = [
        f"{found['experts']} experts over {found['modules']} modules, together of rank {found['rank']}; the largest is "
        f"{name}, {m} x {n}",
        f"about {found['memory_mib']:.0f} MiB of memory beside the program's own, at most "
        f"{found['output_mib']:.0f} MiB written as the adapter (and the same again while it is made)",
    ]
    if (grams := found["grams"]) is not None:
        lines.append(
            f"before that, Gram matrices of each expert where they are missing: {grams['passes']} passes over "
            f"{grams['rows']} questions, {grams['memory_mib']:.0f} MiB of memory beside the model, "
            f"{grams['output_mib']:.0f} MiB on disk"
        )
    return "\n".join(lines)
