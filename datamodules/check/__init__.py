"""Look at the data before any weights load: `python -m datamodules.check`, and its quick part for the program."""

from datamodules.check.quick import quick_check, quick_checks, quick_counts
from datamodules.places import inside_root

__all__ = ["inside_root", "quick_check", "quick_checks", "quick_counts"]
