"""Finds before a run what would make its ranks wait for each other: reads files, runs nothing."""
