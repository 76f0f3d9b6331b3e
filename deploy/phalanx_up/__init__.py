"""Manager and agent in one process: the embedded default."""
