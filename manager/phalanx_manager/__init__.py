"""The manager decides: admits, places, watches, and tells agents what shall be."""
