"""The reference domain's stream as a command: to a file, to Kafka, or compared with the published data set."""
