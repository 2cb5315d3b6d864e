"""The topics of a project: their names and settings, and what is read from and written to them."""
