"""How models are held against each other on history: what each may know, and how good it was, by day and in all."""
