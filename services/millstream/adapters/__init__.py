"""One module per outside system. Nothing here decides; it translates."""
