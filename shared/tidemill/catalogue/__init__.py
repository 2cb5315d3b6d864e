"""The catalogue: the definitions that are in force, with the versions of every view, and what a project would change in them. Pure."""
