"""The machine: files in memory and on disk, keys, firewall, what it has. Nothing of the engine."""
