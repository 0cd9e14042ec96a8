"""The stage loop: Kafka micro-batches and transactions, the in-memory log, state recovery, dead letters."""
