# The command gives signals a meaning of its own; every test here gives them back.
import signal

import pytest

from datamodules.batch import image_key, load_image
from datamodules.prompts import question_text
from tests.curation.made_curation import POOLS, POPULATION


@pytest.fixture(autouse=True)
def _signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def known():
    """(question text, picture) -> example, of every training question of both pools."""
    examples = [e for pool in POOLS.values() for e in pool(pool.Config(**POPULATION)).splits["train"]]
    return {(question_text(e), image_key(load_image(e.images[0]))): e for e in examples}
