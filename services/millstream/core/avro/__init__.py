"""Avro contracts as columns: schemas resolved against each other, records decoded to batches and encoded back."""
