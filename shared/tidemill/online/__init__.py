"""The online store: entities and fences of a view in Redis."""
