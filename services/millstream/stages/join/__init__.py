"""The join of predictions and labels: examples out, and again when a label changes."""
