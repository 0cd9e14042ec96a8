"""The log that a stage reads and writes: the protocol, Kafka and memory."""
