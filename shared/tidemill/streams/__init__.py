"""The topics of a project: their names and settings, and how their records are read and written."""
