"""What every test shares: a clock to set, a store to fill, and Hypothesis profiles."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from latewood.testing import ManualClock

sys.path.insert(0, str(Path(__file__).parent))  # tests are no packages: lets them import what lies beside this file

from moments import START

# Deadlines are off: the first call of a kernel compiles it. HYPOTHESIS_PROFILE=long for a thorough night, and
# HYPOTHESIS_PROFILE=raw to see a failure at once, before minutes of shrinking.
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("default", deadline=None, max_examples=60, suppress_health_check=QUIET)
settings.register_profile("long", deadline=None, max_examples=3000, suppress_health_check=QUIET)
settings.register_profile("raw", parent=settings.get_profile("default"), phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "store"
