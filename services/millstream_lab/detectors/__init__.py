"""What the drift monitors are worth: published streams, simulated traffic, other detectors beside them."""
