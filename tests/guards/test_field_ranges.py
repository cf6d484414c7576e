"""Reference: by hand. Run: pytest tests/guards/test_field_ranges.py."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from guards.ranges import FINITE, Matches, Ranged, above, at_least, between


@dataclass(frozen=True)
class Options(Ranged):
    """Ranges of every kind."""

    count: Annotated[int, at_least(2)] = 8
    rate: Annotated[float, above(0)] = 0.1
    share: Annotated[float, between(0, 1, open_high=True)] = 0.0
    tau: Annotated[float, at_least(0, finite=False)] = math.inf
    betas: Annotated[tuple[float, float], between(0, 1, open_high=True)] = (0.9, 0.99)
    scale: Annotated[float, FINITE] = 1.0
    cap: Annotated[int, at_least(1)] | None = None
    name: Annotated[str, Matches("[a-z]+", "lower-case letters")] = "a"
    kind: Literal["k1", "k2"] = "k1"


@dataclass(frozen=True)
class Below(Options):
    """Inherits ranges, and gives a default anew, which keeps the range."""

    rate: float = 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 1}, "count must be at least 2, got 1"),
        ({"rate": 0.0}, "rate must be above 0, got 0.0"),
        ({"rate": math.inf}, "rate must be above 0 and be finite, got inf"),
        ({"rate": math.nan}, "rate must be above 0, got nan"),
        ({"share": 1.0}, r"share must lie in \[0, 1\), got 1.0"),
        ({"tau": -1.0}, "tau must be at least 0, got -1.0"),
        ({"betas": (0.9, 1.0)}, r"betas must lie in \[0, 1\), got \[0.9, 1.0\]"),
        ({"scale": -math.inf}, "scale must be finite, got -inf"),
        ({"cap": 0}, "cap must be at least 1, got 0"),
        ({"kind": "k3"}, "kind must be one of k1, k2; got 'k3'"),
        ({"name": "a/b"}, "name must be lower-case letters, got a/b"),
        ({"count": -(10**5000)}, "count must be at least 2, got a number of very many digits"),
        ({"count": 0, "share": 2.0}, r"count must be at least 2, got 0; share must lie in \[0, 1\), got 2.0"),
    ],
)
def test_what_lies_outside_is_refused_with_its_range(given, message):
    for config in (Options, Below):
        with pytest.raises(ValueError, match=f"^{message}$"):
            config(**given)


def test_what_lies_inside_is_taken():
    Options(count=2, rate=1e-9, share=0.999, tau=math.inf, betas=(0.0, 0.5), scale=-3.0, cap=None, name="abc")
