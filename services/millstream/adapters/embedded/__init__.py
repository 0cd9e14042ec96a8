"""Servers that run on this machine without Docker."""
