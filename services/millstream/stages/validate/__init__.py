"""Step: bytes to validated columns; what is wrong becomes a rejection."""
