"""Submits jobs by submitit, and prints what came of them."""

import json
import operator
import time

import submitit

executor = submitit.AutoExecutor(folder="logs/%j", slurm_python="python3")
executor.update_parameters(mem_gb=0.25, timeout_min=5)
added = executor.submit(operator.add, 5, 7)
products = executor.map_array(operator.mul, [1, 2, 3], [4, 5, 6])
broken = executor.submit(operator.truediv, 1, 0)
sleeping = executor.submit(time.sleep, 300)
found = {
    "sum": added.result(),
    "products": [job.result() for job in products],
    "log": "Job completed successfully" in added.stdout(),
    "error": "ZeroDivisionError" in str(broken.exception()),
    "cancelled": sleeping.job_id,
}
sleeping.cancel()
print(json.dumps(found))
