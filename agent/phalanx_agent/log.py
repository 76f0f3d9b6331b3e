"""How what happens is written down."""

from __future__ import annotations

import logging
import os

import structlog

from phalanx_wire.diary import Diary


def configure(diary: Diary) -> None:
    """Write one line per event; PHALANX_LOG=debug tells every operation too."""
    level = logging.DEBUG if os.environ.get("PHALANX_LOG") == "debug" else logging.INFO
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: diary,
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
    )
