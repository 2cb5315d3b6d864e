"""Inference: predictions by entity or by tensor over HTTP, each logged to Kafka before it is answered."""
