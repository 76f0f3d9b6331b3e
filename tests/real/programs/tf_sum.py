"""Add up ones over the workers that TF_CONFIG alone names; print the sum as JSON."""

from __future__ import annotations

import json
import os

import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    weight = tf.Variable(1.0)


@tf.function
def step() -> tf.Tensor:
    """A custom loop's step: every worker's own number, added up by the strategy."""

    def one_worker() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, weight * tf.ones([4]))

    return strategy.run(one_worker)


vector = strategy.experimental_local_results(step())[0]
found = {
    "index": json.loads(os.environ["TF_CONFIG"])["task"]["index"],
    "workers": strategy.num_replicas_in_sync,
    "sum": vector.numpy().tolist(),
}
print(json.dumps(found), flush=True)
