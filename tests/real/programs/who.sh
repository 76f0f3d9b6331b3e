#!/bin/sh
# Visits every container of the session by name, and prints who answers.
for host in $(echo "$BACKENDAI_CLUSTER_HOSTS" | tr ',' ' '); do
    # shellcheck disable=SC2016 # the variables are the other container's
    ssh "$host" 'echo "$BACKENDAI_CLUSTER_HOST $RANK of $WORLD_SIZE"' || exit 1
done
