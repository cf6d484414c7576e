# Run: pytest <this file>
import pytest

from benchmarks.floor import decoding_gigabytes, linear_flops, main, step_flops
from benchmarks.made_model import SIZES


def test_flops_by_hand():
    # 100m, one layer: q and o 640 x 640, k and v 640 x 128, three of 640 x 2048; two operations per weight, 12 layers
    assert linear_flops(SIZES["100m"]) == 2 * 12 * (2 * 640**2 + 2 * 640 * 128 + 3 * 640 * 2048)
    assert set(step_flops(SIZES["5m"])) == {"decoding", "reference", "forward", "backward"}


def test_it_prints_a_floor(capsys):
    main(["--size", "5m"])
    told = capsys.readouterr().out.splitlines()
    assert told[-1].endswith("s of CPU")
    assert told[-2].startswith("decoding reads 1.0 GB of weights, ")


def test_what_decoding_reads_by_hand():
    # 5m: six layers of q, o 192 x 192, k, v 192 x 64, three of 192 x 768, and a head of 4,096 x 192, 63 times;
    # 32 rows see 232 tokens on average, each with 2 heads of 32 keys and 32 values in six layers
    weights = 6 * (2 * 192**2 + 2 * 192 * 64 + 3 * 192 * 768) + 4096 * 192
    found = decoding_gigabytes(SIZES["5m"])
    assert found["weights"] == pytest.approx(4 * 63 * weights / 1e9)
    assert found["keys and values"] == pytest.approx(4 * 63 * 32 * 232 * 6 * 2 * 64 / 1e9)
