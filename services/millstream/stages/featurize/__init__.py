"""Step: exact windowed features of one entity."""
