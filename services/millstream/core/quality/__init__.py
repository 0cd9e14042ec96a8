"""How good scores were on labels that come, change and go: figures that depend only on what is known, never on how."""
