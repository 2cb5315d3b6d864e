"""A model that is served by its own pickled pipeline, in a process of its own."""
