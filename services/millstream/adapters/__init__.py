"""One package per outside system; adapters translate and decide nothing."""
