"""Has submitit's signal sent to a job that can be checkpointed, and prints what it gives then."""

from __future__ import annotations

import json
import time
from pathlib import Path

import submitit


class Counting:
    """Says in which attempt it was done; the first one never is."""

    def __init__(self, attempt: int = 1) -> None:
        self.attempt = attempt

    def __call__(self) -> str:
        Path(f"began-{self.attempt}").touch()
        while self.attempt == 1:
            time.sleep(0.1)
        return f"done in attempt {self.attempt}"

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        return submitit.helpers.DelayedSubmission(Counting(self.attempt + 1))


executor = submitit.AutoExecutor(folder="logs", slurm_python="python3")
executor.update_parameters(mem_gb=0.25, timeout_min=5)
job = executor.submit(Counting())
while not Path("began-1").exists():
    time.sleep(0.1)
job._interrupt()
print(json.dumps({"result": job.result()}))
