"""From a published event to the records that it becomes: pure functions of the project, without Kafka and without a clock."""
