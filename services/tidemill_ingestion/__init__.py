"""Ingestion: reads application events, and writes the records of views, requests and outcomes."""
