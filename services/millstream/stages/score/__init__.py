"""Step: features to a score and a decision."""
