"""Model formats and kernels, without I/O."""
