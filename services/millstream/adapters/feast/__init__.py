"""Feast: declarations compiled to the engine's values, its codecs and stores."""
