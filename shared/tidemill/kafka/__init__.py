"""Kafka by aiokafka: clients, ordered waves of records, topics."""
