#!/bin/sh
# Shows what a session gives to a script: who is there, and that ssh needs neither option nor prompt.
# Run in main1 only (--run-on main); it visits the others.
set -eu
echo "I am $BACKENDAI_CLUSTER_HOST, role $BACKENDAI_CLUSTER_ROLE number $BACKENDAI_CLUSTER_IDX," \
    "rank $BACKENDAI_CLUSTER_LOCAL_RANK of $BACKENDAI_CLUSTER_SIZE"
echo "all of us: $BACKENDAI_CLUSTER_HOSTS ($BACKENDAI_CLUSTER_REPLICAS)"
echo "for PyTorch: RANK=$RANK WORLD_SIZE=$WORLD_SIZE MASTER_ADDR=$MASTER_ADDR MASTER_PORT=$MASTER_PORT"
echo "for TensorFlow: TF_CONFIG=$TF_CONFIG"
for host in $(echo "$BACKENDAI_CLUSTER_HOSTS" | tr ',' ' '); do
    # shellcheck disable=SC2016 # the variables are the other container's
    ssh "$host" 'echo "ssh $BACKENDAI_CLUSTER_HOST: rank $RANK, address $(hostname -i 2>/dev/null || cat /etc/hostname)"'
done
