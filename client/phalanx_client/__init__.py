"""The client asks: command line and library."""
