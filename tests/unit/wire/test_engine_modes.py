from __future__ import annotations

import pytest

from phalanx_wire import engine_modes

USUAL = ["name=apparmor", "name=seccomp,profile=default", "name=cgroupns"]


def test_a_usual_engine_is_supported() -> None:
    assert engine_modes.unsupported(USUAL) is None
    assert engine_modes.unsupported([]) is None


@pytest.mark.parametrize(
    ("option", "word"),
    [("name=userns", "userns-remap"), ("name=rootless", "rootless"), ("name=selinux", "SELinux")],
)
def test_a_mode_that_keeps_containers_from_their_keys_is_named_with_what_to_do(
    option: str, word: str
) -> None:
    found = engine_modes.unsupported([*USUAL, option])

    assert found is not None
    assert word in found.text
    assert found.hint.endswith(".")
