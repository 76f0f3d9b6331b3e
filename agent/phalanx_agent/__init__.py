"""The agent does: it makes its host's Docker Engine hold what the manager's goals say."""
