"""What Oumi's page on custom clusters does from Python, with our cloud; prints JSON lines.

Argument: the image.
"""

from __future__ import annotations

import json
import sys

from oumi import launcher

job = launcher.JobConfig(name="test", run="sleep 1000")
job.resources.cloud = "phalanx"
job.resources.image_id = f"docker:{sys.argv[1]}"
job.resources.cpus = "0.5"
job.resources.memory = "0.25"


def tell(**found: object) -> None:
    print(json.dumps(found), flush=True)


tell(clouds=launcher.which_clouds())
first_cluster, first = launcher.up(job, "first_cluster")
second_cluster, second = launcher.up(job, "second_cluster", priority=1)
tell(
    names=[first_cluster.name(), second_cluster.name()],
    jobs=[first.name, second.name],
    done=[first.done, second.done],
)
cancelled = launcher.cancel(first.id, job.resources.cloud, first.cluster)
tell(cancelled=cancelled.state.name, done=cancelled.done)
for cluster in launcher.get_cloud("phalanx").list_clusters():
    if cluster.name() in ("first_cluster", "second_cluster"):
        cluster.down()
        tell(down=cluster.name(), jobs=[one.state.name for one in cluster.get_jobs()])
