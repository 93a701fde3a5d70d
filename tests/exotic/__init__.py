"""A real Kafka and a real Cassandra, from their Maven artefacts: `make test-exotic`."""
