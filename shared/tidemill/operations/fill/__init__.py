"""Filling a version of a view with all events that there are, and handing it over to ingestion."""
