"""A small asynchronous client for Redis and Valkey: one server or a cluster, on one shared connection each."""
