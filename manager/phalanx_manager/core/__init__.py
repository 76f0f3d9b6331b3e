"""What the manager decides, as pure functions of the database and of what agents report."""
