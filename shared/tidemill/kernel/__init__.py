"""The fold and the read of features: pure, without Kafka, Redis or a clock."""
