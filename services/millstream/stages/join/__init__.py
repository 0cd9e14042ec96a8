"""Predictions wait for their labels; examples go out, and go out anew when a label changes."""
