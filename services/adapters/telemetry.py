"""Prometheus metrics: every name in one typed catalogue, plus the loopback endpoint that serves them."""
