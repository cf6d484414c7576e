# Reference: the models that transformers builds of the released configurations, without memory. Run: pytest <this file>
import re

import pytest
import torch
import yaml

from configs.build import import_class
from configs.load import CONFIGS
from lightning_modules.families.published import PublishedFamily
from tests.lightning_modules.families.released_configs import RELEASED

ZOO = {path.stem: path.read_text(encoding="utf-8") for path in sorted((CONFIGS / "model").glob("*.yaml"))}
SIZE = re.compile(r"# \S+: ([\d,]+) parameters, ([\d.]+) GiB in bfloat16\.")


@pytest.mark.parametrize("name", sorted(ZOO))
def test_a_size_that_is_stated_is_that_of_the_model(name):
    model = yaml.safe_load(ZOO[name])["model"]
    family = import_class(model["class_path"])
    stated = SIZE.match(ZOO[name])
    if not issubclass(family, PublishedFamily):
        assert stated is None
        return
    assert (stated is not None) == (name in RELEASED), "a size is computed from what released_configs.py states"
    if stated is None:
        return
    config = family.model_class.config_class(**RELEASED[name])
    with torch.device("meta"):
        built = family.model_class(config)
    count = sum(parameter.numel() for parameter in built.parameters())
    assert (int(stated[1].replace(",", "")), float(stated[2])) == (count, round(2 * count / 2**30, 1))


def test_an_adapter_reaches_all_language_layers_and_no_tower():
    for name, released in RELEASED.items():
        family = import_class(yaml.safe_load(ZOO[name])["model"]["class_path"])
        config = family.model_class.config_class(**released)
        with torch.device("meta"):
            built = family.model_class(config)
        linears = [n for n, module in built.named_modules() if isinstance(module, torch.nn.Linear)]
        hit = [n for n in linears if re.fullmatch(family.lora_targets, n)]
        assert len(hit) == 7 * config.get_text_config().num_hidden_layers
        assert not any("visual" in n or "vision" in n for n in hit)
