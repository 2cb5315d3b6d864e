"""Scoring of tables: what a version of a model would have answered to each of many requests."""
