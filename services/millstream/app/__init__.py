"""Use cases: what the Python API and the command line call; the composition root."""
