"""What all tests share: how hypothesis looks for counter-examples, and that signals are heard."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

# What runs in the background is deaf to Ctrl-C, and under nohup to a hangup. Its children inherit
# that, and some of the tests' are sent these.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

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
