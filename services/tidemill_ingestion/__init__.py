"""Ingestion: application events in, records of views, requests and outcomes out."""
