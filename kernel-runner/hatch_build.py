"""Puts the built bundles into the wheel, those to use and no others; without one there is no wheel.

An agent from such a wheel would start no container, on a host that has no compiler.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOM = Path(__file__).parent


class BundleHook(BuildHookInterface):  # type: ignore[type-arg] # its parameter is no class
    """Runs in a build of a wheel, which may be isolated from the environment of the checkout."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """An editable installation finds the bundle where it is built."""
        if version == "editable":
            return
        sys.path.insert(0, str(ROOM))
        from phalanx_runner import bundle  # noqa: PLC0415 - known only now where it is

        pointers = bundle.pointers(bundle.IN_PACKAGE)
        if not pointers:
            raise bundle.BundleMissing(
                f"There is no runner bundle in {bundle.IN_PACKAGE}, and a wheel without one would "
                "be no use to an agent: run `make bundle` (for arm64, `make bundle-arm64`) first."
            )
        inside = bundle.IN_PACKAGE.relative_to(ROOM)
        for pointer in pointers:
            path = bundle.IN_PACKAGE / pointer.read_text().strip()
            bundle.verify(path)
            for part in (pointer, path):
                build_data["force_include"][str(part)] = str(inside / part.name)
