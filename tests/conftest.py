"""Fixtures, and hypothesis' profiles.

`pytest` draws the same cases every time, `pytest --hypothesis-profile=explore` new ones.
"""

import numpy as np
import pytest
from hypothesis import settings

import cybn

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def rng():
    return np.random.default_rng(20150211)


@pytest.fixture(autouse=True)
def _threads_are_not_chosen():
    yield
    cybn.set_num_threads(None)
