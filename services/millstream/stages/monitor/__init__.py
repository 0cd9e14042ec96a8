"""Watch what was said against what became known, and alert."""
