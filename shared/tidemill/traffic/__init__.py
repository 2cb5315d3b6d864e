"""Invented traffic of a project, with drifts of one's choosing: to try a pipeline before production. What is made is pure: the same seed, the same events."""
