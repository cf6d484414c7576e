"""What the merge benchmark compares with what."""

from __future__ import annotations

DENSITY = 0.2
"""Fraction of entries that TIES keeps."""
FIVE = ("task_arithmetic", "swudi_a", "core_ties", "iso_c", "tsv_m")
"""Candidates in factor space that are made in one pass."""
WORKS = {
    "task_arithmetic": ("peft_svd",),
    "ties": ("peft_ties_svd", "mergekit_ties"),
    "five": ("peft_svd",),
}
"""Our work -> the peers' that it is set beside."""
PEERS = {
    "peft_svd": "PEFT add_weighted_adapter, svd",
    "peft_ties_svd": "PEFT add_weighted_adapter, ties_svd",
    "mergekit_ties": "mergekit ties in fp32, then mergekit-extract-lora",
}
