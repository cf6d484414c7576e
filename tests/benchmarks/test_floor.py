# Run: pytest <this file>
from benchmarks.floor import linear_flops, main, step_flops
from benchmarks.made_model import SIZES


def test_flops_by_hand():
    # 100m, one layer: q and o 640 x 640, k and v 640 x 128, three of 640 x 2048; two operations per weight, 12 layers
    assert linear_flops(SIZES["100m"]) == 2 * 12 * (2 * 640**2 + 2 * 640 * 128 + 3 * 640 * 2048)
    assert set(step_flops(SIZES["5m"])) == {"decoding", "reference", "forward", "backward"}


def test_it_prints_a_floor(capsys):
    main(["--size", "5m"])
    assert capsys.readouterr().out.splitlines()[-1].endswith("s of CPU")
