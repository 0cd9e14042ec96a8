"""More partitions for a project."""
