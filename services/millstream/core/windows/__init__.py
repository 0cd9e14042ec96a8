"""Exact event-time windows (t - w, t] per key, as one ordered ring of entries for each."""
