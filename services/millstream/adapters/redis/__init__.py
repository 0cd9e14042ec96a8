"""Redis or Valkey: the online view."""
