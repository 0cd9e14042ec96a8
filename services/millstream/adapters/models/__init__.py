"""Model libraries and the registry."""
