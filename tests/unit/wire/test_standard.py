"""Programs that are begun without an output."""

from __future__ import annotations

import subprocess
import sys


def test_a_closed_output_is_led_nowhere_before_another_file_has_its_number() -> None:
    shown = "fill_standard_streams(); print(os.readlink('/proc/self/fd/1'), file=sys.stderr)"
    program = f"import os, sys; from phalanx_wire.standard import fill_standard_streams; {shown}"
    done = subprocess.run(
        ["sh", "-c", f'exec {sys.executable} -c "{program}" >&-'],
        stderr=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip

    assert "/dev/null\n" == done.stderr
