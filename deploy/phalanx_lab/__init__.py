"""A whole cluster on one Linux machine: real Docker Engines in network namespaces."""
