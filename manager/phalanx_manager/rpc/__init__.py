"""The link to the agents: one ZeroMQ socket, keys, greeting. The only room that speaks ZeroMQ."""
