"""The kernel runner: its bundle, and the agent's side of its protocol."""
