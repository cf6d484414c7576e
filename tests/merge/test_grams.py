# Reference: all matrices at once, in fp64. Run: pytest tests/merge/test_grams.py
from dataclasses import replace

import pytest
import torch

from merge.__main__ import main
from merge.grams import StoredGrams, made_before, passes, write_grams
from merge.live import Live
from merge.methods.regmean import RegMean, regmean
from merge.methods.task_arithmetic import TaskArithmetic
from merge.plan import plan
from merge.recipe import Recipe, Source

WIDTHS = {"q_proj": 24, "o_proj": 24, "up_proj": 24, "down_proj": 80}
SIZES = {f"layers.{layer}.{name}": n for layer in range(3) for name, n in WIDTHS.items()}


def samples(module, rows=60):
    """Correlated inputs of very different scales, as a model's are."""
    n, generator = SIZES[module], torch.Generator().manual_seed(sorted(SIZES).index(module))
    x = torch.randn(rows, n, generator=generator) * torch.logspace(-2, 2, n)
    return x + x.mean(1, keepdim=True)


def gram(module):
    x = samples(module).double()
    return x.T @ x / len(x)


class Collector:
    """Stands for passes over a model; remembers what was asked for, and how much was held."""

    def __init__(self):
        self.asked = []

    def __call__(self, names):
        self.asked.append(list(names))
        return {name: gram(name) for name in names}


@pytest.mark.parametrize("budget", [0.001, 0.05, 0.1, 100])
def test_the_budget_decides_the_passes_and_no_byte(tmp_path, budget):
    whole, few = Collector(), Collector()
    expected = write_grams(tmp_path / "whole", SIZES, whole, {"rows": "60"}, budget_mib=1e6)
    found = write_grams(tmp_path / "few", dict(reversed(SIZES.items())), few, {"rows": "60"}, budget_mib=budget)
    assert found.read_bytes() == expected.read_bytes()
    assert whole.asked == [sorted(SIZES)]
    assert few.asked == passes(SIZES, budget)
    for names in few.asked:
        assert len(names) == 1 or sum(8 * SIZES[name] ** 2 for name in names) <= budget * 2**20
    assert sorted(name for names in few.asked for name in names) == sorted(SIZES), "each in one pass"
    assert made_before(found.parent, {"rows": "60"})
    assert not made_before(found.parent, {"rows": "61"})
    for name, G in StoredGrams(found).items():
        torch.testing.assert_close(G.double(), gram(name), rtol=6e-8, atol=0)  # fp32 keeps 24 bits: 2^-24


def test_passes_by_hand():
    # 8 * 16^2 = 2048 bytes each, 8 * 32^2 = 8192: 0.008 MiB are 8389 bytes, so four of the small or one of the large.
    sizes = {"a": 16, "b": 16, "c": 32, "d": 16, "e": 16, "f": 16, "g": 16, "h": 16, "i": 64}
    assert passes(sizes, 0.008) == [["a", "b"], ["c"], ["d", "e", "f", "g"], ["h"], ["i"]]
    # A model of 7B: 28 layers of q, k, v, o, gate, up (3584 inputs) and down (18944); all at once would be 98 GB.
    wide = {f"layers.{i:02}.{n}": 3584 for i in range(28) for n in ("q", "k", "v", "o", "gate", "up")}
    wide |= {f"layers.{i:02}.down": 18944 for i in range(28)}
    assert sum(8 * n * n for n in wide.values()) == pytest.approx(97.7e9, rel=0.01)
    assert len(passes(wide)) == 28


def test_what_a_pass_does_not_give_or_that_fails_leaves_no_file(tmp_path):
    def stops(names):
        if "layers.1.q_proj" in names:
            raise RuntimeError("midway")
        return {name: gram(name) for name in names}

    with pytest.raises(RuntimeError, match="midway"):
        write_grams(tmp_path / "g", SIZES, stops, {}, budget_mib=0.05)
    assert not (tmp_path / "g").exists()


def test_rounding_the_matrices_to_fp32_hardly_moves_regmean(vector):
    factors = [list(vector(seed, rank=4).values())[1] for seed in (1, 2)]
    exact, rounded = [], []
    for seed in (1, 2):
        x = torch.randn(200, 30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        x = x * torch.logspace(-2, 2, 30, dtype=torch.float64)  # squares span eight decades
        exact.append(x.T @ x / 200)
        rounded.append(exact[-1].float())
    a, b = (regmean(factors, grams, [1.0, 1.0]) for grams in (exact, rounded))
    difference = ((a.B @ a.A) - (b.B @ b.A)).norm() / (a.B @ a.A).norm()
    assert difference < 1e-5


def test_regmean_takes_matrices_one_at_a_time_and_refuses_another_size(vector):
    factors = [next(iter(vector(seed).values())) for seed in (1, 2, 3)]
    held = []

    def given():
        for _ in factors:
            held.append(torch.eye(16))
            yield held[-1]

    listed = regmean(factors, [torch.eye(16)] * 3, [1.0, 2.0, 3.0])
    taken = regmean(factors, given(), [1.0, 2.0, 3.0])
    assert torch.equal(listed.A, taken.A)
    assert torch.equal(held[0], torch.eye(16)), "what is given stays as it is"
    with pytest.raises(ValueError, match=r"shape \(15, 15\) for a module with 16 inputs"):
        regmean(factors, [torch.eye(16), torch.eye(15), torch.eye(16)], [1.0] * 3)


def test_the_plan_tells_passes_and_memory(expert, tmp_path, capsys):
    sources = {"a": [Source(expert("a", seed=1))]}
    recipe = Recipe(sources, RegMean(), tmp_path / "out", live=Live("made.yaml", rows=7, gram_mib=1))
    # two modules of 16 and 30 inputs: 8 * (16^2 + 30^2) bytes of sums, and two of 4 * 30^2 on their way to the file
    found = plan(recipe)["grams"]
    assert found == {
        "passes": 1,
        "rows": 7,
        "memory_mib": (8 * (16**2 + 30**2) + 2 * 4 * 30**2) / 2**20,
        "output_mib": 4 * (16**2 + 30**2) / 2**20,
    }
    assert plan(replace(recipe, method=TaskArithmetic()))["grams"] is None
    assert plan(replace(recipe, live=None))["grams"] is None
    (tmp_path / "r.yaml").write_text("{sources: {a: a/adapter}, method: regmean, out: out, live: {config: x.yaml}}")
    assert main(["run", "--dry-run", "--config", str(tmp_path / "r.yaml")]) == 0
    assert "Gram matrices of each expert where they are missing: 1 passes over 96 questions" in capsys.readouterr().out
    (tmp_path / "r.yaml").write_text("{sources: {a: a/adapter}, method: mean, out: o, live: {config: x, gram_mib: 0}}")
    assert main(["run", "--dry-run", "--config", str(tmp_path / "r.yaml")]) == 2
    assert "gram_mib" in capsys.readouterr().err
