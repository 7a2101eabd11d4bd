"""What every test shares: hypothesis's profiles. Fixtures live beside the tests that use them."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# The gate must give the same answer twice: examples come from the test's own name, and no deadline,
# because a shared machine stalls. `HYPOTHESIS_PROFILE=explore` looks for new examples instead.
settings.register_profile(
    "gate",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", deadline=None, max_examples=1_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))
