"""From an event as it was published to the records it becomes: pure functions of the project, without Kafka and without a clock."""
