"""The container engine: the one room that speaks to it."""
