"""The database, behind one port; SQL is spoken here only."""
