"""Reference: by hand. Run: pytest tests/configs/test_build.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from configs.build import MissingError, build, construct, import_class
from configs.check import as_plain
from configs.load import load
from configs.problems import ConfigError
from configs.schema import Component


@dataclass(frozen=True)
class Inner:
    """A nested structure."""

    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Two:
    """Two numbers."""

    a: int = 0
    b: int = 0


@dataclass(frozen=True)
class Needs:
    """One number without a default."""

    a: int
    b: int = 0


class Part:
    """A component as ours are written."""

    @dataclass(frozen=True)
    class Config:
        """Its options."""

        root: Path = Path()
        rate: float = 0.0
        pair: tuple[int, float] = (0, 0.0)
        inner: Inner = field(default_factory=Inner)
        perhaps: Inner | None = None
        groups: dict[str, list[int]] = field(default_factory=dict)
        names: list[str] = field(default_factory=list)

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        self.config, self.seed = config, seed


class Plain:
    """A component without `Config`, as third-party classes are."""

    def __init__(self, monitor: str, patience: int = 3) -> None:
        self.monitor, self.patience = monitor, patience


def test_build_gives_the_types_that_the_config_names():
    init_args = {
        "root": "films",
        "rate": 1,
        "pair": [1, 2],
        "inner": {"sizes": [1, 2]},
        "perhaps": {"sizes": [3]},
        "groups": {"a": [1]},
        "names": ["x"],
    }
    part = build(Component(f"{__name__}.Part", init_args), seed=4)
    assert part.seed == 4
    expected = Part.Config(Path("films"), 1.0, (1, 2.0), Inner((1, 2)), Inner((3,)), {"a": [1]}, ["x"])
    assert part.config == expected
    assert type(part.config.rate) is float
    assert type(part.config.pair[1]) is float
    assert construct(Part.Config, as_plain(expected)) == expected  # plain data and back
    assert init_args["pair"] == [1, 2]  # the input is not written to


def test_what_is_given_of_a_nested_part_is_laid_over_its_default():
    @dataclass(frozen=True)
    class Outer:
        inner: Two = field(default_factory=lambda: Two(3, 4))
        perhaps: Two | None = None
        rate: float | None = None

    assert construct(Outer, {"inner": {"b": 5}, "rate": 1}) == Outer(Two(3, 5), None, 1.0)
    assert construct(Outer, {"perhaps": {"b": 5}}).perhaps == Two(0, 5)
    with pytest.raises(MissingError, match="Needs needs a"):
        construct(Needs, {"b": 1})


def test_a_class_without_config_takes_keywords():
    part = build(Component(f"{__name__}.Plain", {"monitor": "loss"}), patience=9)
    assert (part.monitor, part.patience) == ("loss", 9)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("Plain", "not of the form"),
        ("configs.schema.Nothing", "no such class or function 'configs.schema.Nothing'"),
        ("configs.schema.check_name", "not a class"),
        ("configs.nowhere.A", "nowhere"),
        ("os.system('x').A", "not of the form"),
    ],
)
def test_a_wrong_class_path_is_refused(path, message):
    with pytest.raises(ImportError, match=message):
        import_class(path)


def test_an_option_of_a_part_is_laid_over_the_part_that_is_the_default():
    # the class and its other options are those of GBA's own default
    loaded = load("rl_gba.yaml", ["module.init_args.transfer.init_args.eta=0.3", "module.init_args.kl.init_args={}"])
    part = loaded.resolved["module"]["init_args"]["transfer"]
    assert part["class_path"] == "lightning_modules.transfer.policy_gradient.PolicyGradientTransfer"
    assert part["init_args"] == {"eta": 0.3}
    assert loaded.experiment.module.init_args["transfer"] == part
    with pytest.raises(ConfigError, match=r"transfer\.init_args\.etha: unknown key"):
        load("rl_gba.yaml", ["module.init_args.transfer.init_args.etha=0.3"])
    with pytest.raises(ConfigError, match=r"transfer\.class_path: missing"):
        load("rl_grpo.yaml", ["module.init_args.transfer.init_args.eta=0.3"])  # there the default is none
