# Reference: what must hold of every method found by walking merge/methods. Run: pytest tests/merge/test_methods.py
import importlib
import inspect
import itertools
import pkgutil

import pytest
import torch

import merge.methods
from configs.problems import ConfigError
from merge.auto import CANDIDATES
from merge.cores import Core
from merge.factors import Factors, TaskVector
from merge.methods.interface import Experts, MergeMethod
from merge.methods.learned import LearnedScalars
from merge.recipe import PRESETS, build_method, read_method


def found():
    for info in pkgutil.iter_modules(merge.methods.__path__):
        module = importlib.import_module(f"merge.methods.{info.name}")
        for cls in vars(module).values():
            own = inspect.isclass(cls) and cls.__module__ == module.__name__
            if own and issubclass(cls, MergeMethod) and not inspect.isabstract(cls):
                yield cls


METHODS = list(found())
KEEP_ALL = {
    "Ties": {"density": 1.0},
    "CoreTies": {"density": 1.0},
    "Knots": {"density": 1.0},
    "Dare": {"density": 1.0},
    "Della": {"density": 1.0, "epsilon": 0.0},
    "Breadcrumbs": {"density": 1.0, "gamma": 0.0},
    "Ram": {"epsilon": 0.0},
    "Ace": {"prior": "none"},
}
"""Settings under which a method that drops entries drops none, and one that shrinks does not."""
FLATTENS = {"IsoC"}
"""One expert alone does not come back, by design."""
ADDS = {"TaskArithmetic", "Cat", "Dare", "Breadcrumbs", "LearnedScalars"}
"""K copies give K times the expert; every other method gives the expert."""


def built(cls, names="", **options):
    if cls.__name__ == "LearnedScalars":
        options |= {"per": "expert", "scalars": {name: {"all": 1.0} for name in names}}
    return build_method(f"{cls.__module__}.{cls.__name__}", KEEP_ALL.get(cls.__name__, {}) | options)


def grams(vectors, seed=5):
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name, vector in vectors.items():
        inputs = {m: torch.randn(80, f.shape[1], generator=generator, dtype=torch.float64) for m, f in vector.items()}
        result[name] = {module: x.T @ x / len(x) for module, x in inputs.items()}
    return result


def dense(update):
    value = update.value
    if isinstance(value, Core):
        value = value.factors()
    return value.B @ value.A if isinstance(value, Factors) else value


def merged(cls, vectors, weights=None, given=None, **options):
    """Module -> dense result."""
    method = built(cls, list(vectors), **options)
    given = (grams(vectors) if given is None else given) if method.needs_grams else None
    module = method.merge(Experts(vectors, weights, given))
    return {name: dense(module(name)) for name in next(iter(vectors.values()))}


def close(a, b, scale=1.0):
    for name in a:
        torch.testing.assert_close(a[name], b[name] * scale, rtol=2e-4, atol=2e-4)


def test_every_method_of_the_list_is_there():
    names = {cls.__name__ for cls in METHODS}
    assert names >= {"Mean", "TaskArithmetic", "Cat", "Ties", "Dare", "Della", "Breadcrumbs", "MagMax"}
    assert names >= {"TsvM", "Knots", "IsoC", "CoreTies", "Wudi", "Swudi", "Ram", "RegMean", "Ace", "LearnedScalars"}


@pytest.mark.parametrize("cls", METHODS)
def test_one_expert_alone_comes_back(cls, vector):
    alone = vector(1)
    result = merged(cls, {"only": alone})
    if cls.__name__ in FLATTENS:
        for name in alone:
            S = torch.linalg.svdvals(result[name])[:4]
            expected = torch.linalg.svdvals(alone.delta(name))[:4].mean().expand(4)
            torch.testing.assert_close(S, expected, rtol=1e-4, atol=0)
        return
    close(result, {name: alone.delta(name) for name in alone})


@pytest.mark.parametrize("cls", [cls for cls in METHODS if cls.__name__ not in FLATTENS | {"Della"}])
def test_copies_of_an_expert_are_the_expert(cls, vector):
    alone = vector(1)
    result = merged(cls, dict.fromkeys("abc", alone), **({"share": 1.0} if cls.__name__ == "TsvM" else {}))
    close(result, {name: alone.delta(name) for name in alone}, scale=3.0 if cls.__name__ in ADDS else 1.0)


@pytest.mark.parametrize("cls", METHODS)
def test_the_order_of_the_experts_does_not_matter(cls, vector):
    vectors = {"a": vector(1, rank=2), "b": vector(2, rank=5), "c": vector(3, scale=0.3)}
    weights = {"a": 1.0, "b": 0.5, "c": 2.0}
    given = grams(vectors)
    first = None
    for order in itertools.permutations(vectors):
        result = merged(cls, {n: vectors[n] for n in order}, [weights[n] for n in order], given)
        first = first or result
        close(result, first)


@pytest.mark.parametrize("cls", [cls for cls in METHODS if cls.__name__ != "Ram"])
@pytest.mark.parametrize("scale", [1e-4, 7.0])
def test_scaling_the_experts_scales_the_result(cls, vector, scale):
    vectors = {"a": vector(1), "b": vector(2, rank=5), "c": vector(3)}
    small = {name: v * scale for name, v in vectors.items()}
    result = merged(cls, small, given=grams(vectors))
    for name, expected in merged(cls, vectors, given=grams(vectors)).items():
        torch.testing.assert_close(result[name], expected * scale, rtol=2e-4, atol=2e-4 * scale)


def refactored(vector, seed):
    """The same updates split otherwise, B G and G^-1 A, and padded with a direction that does nothing."""
    modules = {}
    for name, f in vector.items():
        G = torch.randn(f.rank, f.rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        A, B = torch.linalg.solve(G, f.A.double()).float(), (f.B.double() @ G).float()
        modules[name] = Factors(torch.cat([A, A[:1]]), torch.cat([B, torch.zeros_like(B[:, :1])], dim=1))
    return TaskVector(modules)


@pytest.mark.parametrize("cls", METHODS)
def test_the_result_does_not_depend_on_how_an_update_is_factored(cls, vector):
    vectors = {"a": vector(1), "b": vector(2, rank=3), "c": vector(3)}
    turned = {name: refactored(v, seed) for seed, (name, v) in enumerate(vectors.items())}
    close(merged(cls, turned, given=grams(vectors)), merged(cls, vectors, given=grams(vectors)))


@pytest.mark.parametrize("cls", METHODS)
def test_a_zero_expert_is_survived(cls, vector):
    vectors = {"a": vector(1), "zero": vector(2) * 0.0, "b": vector(3)}
    for name, result in merged(cls, vectors).items():
        assert torch.isfinite(result).all(), name
    for result in merged(cls, {"zero": vectors["zero"]}).values():
        assert not result.any()


@pytest.mark.parametrize("cls", METHODS)
def test_modules_may_be_asked_for_in_any_order_and_inputs_stay_as_they_are(cls, vector):
    vectors = {"a": vector(1), "b": vector(2, rank=5)}
    before = {name: {m: (f.A.clone(), f.B.clone()) for m, f in v.items()} for name, v in vectors.items()}
    method = built(cls, list(vectors))
    module = method.merge(Experts(vectors, grams=grams(vectors) if method.needs_grams else None))
    forward = {name: dense(module(name)) for name in vectors["a"]}
    for name in reversed(list(vectors["a"])):
        assert torch.equal(dense(module(name)), forward[name])
    for name, v in vectors.items():
        assert all(torch.equal(f.A, before[name][m][0]) and torch.equal(f.B, before[name][m][1]) for m, f in v.items())


@pytest.mark.parametrize("cls", METHODS)
def test_weights_that_do_not_fit_are_refused(cls, vector):
    vectors = {"a": vector(1), "b": vector(2)}
    for weights in ([1.0], [1.0, float("nan")], [1.0, 2.0, 3.0]):
        with pytest.raises(ValueError, match="weight"):
            merged(cls, vectors, weights)
    if built(cls).positive_weights:
        with pytest.raises(ValueError, match="above 0"):
            merged(cls, vectors, [1.0, 0.0])


@pytest.mark.parametrize("cls", [cls for cls in METHODS if "lambda_" in cls.Config.__dataclass_fields__])
def test_lambda_scales_the_result_and_must_be_a_number(cls, vector):
    vectors = {"a": vector(1), "b": vector(2, rank=5)}
    close(merged(cls, vectors, lambda_=0.5), merged(cls, vectors), scale=0.5)
    with pytest.raises(ValueError, match="lambda_"):
        cls.Config(lambda_=float("nan"))


@pytest.mark.parametrize("cls", [cls for cls in METHODS if "consensus" in cls.Config.__dataclass_fields__])
def test_words_that_are_no_choice_are_refused(cls):
    with pytest.raises(ValueError, match=r"consensus must be one of .*; got 'vote'"):
        cls.Config(consensus="vote")


@pytest.mark.parametrize("cls", [cls for cls in METHODS if cls.needs_grams])
def test_methods_that_need_data_say_so(cls, vector):
    with pytest.raises(ValueError, match="needs Gram matrices"):
        built(cls).merge(Experts({"a": vector(1)}))
    with pytest.raises(ValueError, match="Gram matrices of"):
        built(cls).merge(Experts({"a": vector(1)}, grams={"b": {}}))


def test_learned_scalars_scale_every_layer_of_every_expert(vector):
    vectors = {"a": vector(1), "b": vector(2, rank=5)}
    scalars = {
        "a": {"model.layers.0": 0.5, "model.layers.1": -2.0},
        "b": {"model.layers.0": 3.0, "model.layers.1": 0.0},
    }
    module = LearnedScalars(LearnedScalars.Config(scalars=scalars)).merge(Experts(vectors, [1.0, 2.0]))
    a, b = vectors.values()
    for name, (of_a, of_b) in {"model.layers.0.q_proj": (0.5, 6.0), "model.layers.1.down_proj": (-2.0, 0.0)}.items():
        torch.testing.assert_close(dense(module(name)), of_a * a.delta(name) + of_b * b.delta(name))
    for per, wrong in (("module", scalars), ("layer", {"a": scalars["a"]}), ("layer", {"a": {}, "b": {}})):
        with pytest.raises(ValueError, match="scalars of"):
            LearnedScalars(LearnedScalars.Config(per=per, scalars=wrong)).merge(Experts(vectors))
    with pytest.raises(ValueError, match="learns them from a live model"):
        LearnedScalars().merge(Experts(vectors))


def test_every_preset_and_every_candidate_can_be_built():
    presets = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    assert {"caci", "default", "regmean", "ties_unit"} <= set(presets)
    methods = [read_method(name) for name in presets]
    assert {type(method).__name__ for method in methods} == {cls.__name__ for cls in METHODS}
    for spec in CANDIDATES.values():
        build_method(spec["class_path"], spec["init_args"])
    with pytest.raises(ConfigError, match=r"no preset 'cacy' .* breadcrumbs, caci, "):
        read_method("cacy")
