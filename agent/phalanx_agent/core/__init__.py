"""What the agent decides and reads, without touching anything. Pure."""
