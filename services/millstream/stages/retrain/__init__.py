"""From replayed features and labels to a registered, promoted model."""
