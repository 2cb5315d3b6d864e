"""Kafka through aiokafka: clients, ordered waves of records, topics."""
