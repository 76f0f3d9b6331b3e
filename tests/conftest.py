"""What all tests share: how hypothesis looks for counter-examples, and that Ctrl-C is heard."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

# A shell starts what runs in the background deaf to Ctrl-C, and its children inherit that: those of
# the tests that are sent it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A gate says the same of the same tree, on an idle machine and on a busy one. To look further:
# PHALANX_EXPLORE=1 make unit
settings.register_profile(
    "gate",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("explore" if os.environ.get("PHALANX_EXPLORE") else "gate")
