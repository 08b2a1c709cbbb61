"""The embedded stack: Kafka, Valkey and the four processes on one machine, without Docker and without root."""
