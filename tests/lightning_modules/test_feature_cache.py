# Run: pytest <this file>
import torch

from lightning_modules.feature_cache import FeatureCache


def test_the_least_recently_used_leaves_first():
    cache = FeatureCache(max_bytes=2 * 4)
    for key in "ab":
        cache.put(key, torch.ones(1))
    cache.get("a")
    cache.put("c", torch.ones(1))
    assert cache.get("b") is None
    assert cache.get("a") is not None


def test_what_is_too_large_leaves_the_others_alone():
    cache = FeatureCache(max_bytes=2 * 4)
    cache.put("a", torch.ones(1))
    cache.put("big", torch.ones(3))
    assert cache.get("a") is not None
    assert cache.get("big") is None
    cache.put("a", torch.ones(3))
    assert cache.get("a") is None
    assert cache.held.bytes == 0


def test_another_process_finds_the_features_of_the_same_model_only(tmp_path):
    FeatureCache(2**20, tmp_path, "model 1").put("a/../b", torch.arange(3.0))
    assert FeatureCache(2**20, tmp_path, "model 1").get("a/../b").tolist() == [0, 1, 2]
    assert FeatureCache(2**20, tmp_path, "model 2").get("a/../b") is None
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]


def test_a_damaged_file_counts_as_absent(tmp_path):
    FeatureCache(2**20, tmp_path).put("a", torch.arange(3.0))
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-5])
    cache = FeatureCache(2**20, tmp_path)
    assert cache.get("a") is None
    cache.put("a", torch.arange(3.0))
    assert FeatureCache(2**20, tmp_path).get("a").tolist() == [0, 1, 2]


def test_a_folder_that_cannot_be_written_leaves_memory(tmp_path):
    (tmp_path / "file").write_text("")
    cache = FeatureCache(2**20, tmp_path / "file")
    cache.put("a", torch.ones(2))
    assert cache.get("a").tolist() == [1, 1]
