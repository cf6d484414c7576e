"""Reference: by hand, the complaints of small dataclasses. Run: pytest tests/configs/test_ranges.py."""

from dataclasses import dataclass

from configs.ranges import range_faults


@dataclass(frozen=True)
class OneByOne:
    """Stops at its first complaint."""

    low: float = 0.0
    high: float = 1.0
    count: int = 2

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")
        if self.low < 0:
            raise ValueError(f"low must be at least 0, got {self.low}")
        if self.low >= self.high:
            raise ValueError("low must be below high")


@dataclass(frozen=True)
class AllAtOnce:
    """Says everything in one text."""

    low: float = 0.0
    count: int = 2

    def __post_init__(self) -> None:
        faults = [f"{name} is negative" for name in ("low", "count") if getattr(self, name) < 0]
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True)
class Needs:
    """A field that has no default to return to."""

    name: str
    count: int = 2

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty")
        if self.count < 0:
            raise ValueError("count must be at least 0")


def test_every_complaint_is_heard_and_put_to_its_field():
    assert range_faults(OneByOne, {"low": -1.0, "count": 0}) == [
        ("count", "count must be at least 1, got 0"),
        ("low", "low must be at least 0, got -1.0"),
    ]
    assert range_faults(OneByOne, {"low": 0.5, "high": 2.0}) == []


def test_a_clash_of_two_fields_is_told_once():
    # neither value is wrong alone beside the other's default, and one of the two takes the blame
    assert range_faults(OneByOne, {"low": 0.9, "high": 0.5}) == [("low", "low must be below high")]


def test_a_default_put_in_place_is_not_blamed():
    # low = -5 is at fault; back at its default 0 it is not below high = -1, which nobody wrote together
    assert range_faults(OneByOne, {"low": -5.0, "high": -1.0}) == [("low", "low must be at least 0, got -5.0")]


def test_a_text_of_several_complaints_is_taken_apart():
    assert range_faults(AllAtOnce, {"low": -1.0, "count": -1}) == [
        ("low", "low is negative"),
        ("count", "count is negative"),
    ]


def test_required_fields_need_a_stand_in_to_look_further():
    given = {"name": "", "count": -1}
    assert range_faults(Needs, given) == [("name", "name must not be empty")]
    assert range_faults(Needs, given, stand_ins={"name": "x"}) == [
        ("name", "name must not be empty"),
        ("count", "count must be at least 0"),
    ]
