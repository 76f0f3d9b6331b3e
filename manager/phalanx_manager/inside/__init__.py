"""Answers what containers ask, each about its own session."""
