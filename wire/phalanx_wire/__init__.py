"""What manager, agent and client agree on: names, shapes and the life of a kernel. Pure."""
