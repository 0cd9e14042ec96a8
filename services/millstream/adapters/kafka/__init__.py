"""Apache Kafka: clients, topics and what is stored in them."""
