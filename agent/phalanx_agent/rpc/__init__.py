"""The link to the manager: the one room that speaks ZeroMQ."""
