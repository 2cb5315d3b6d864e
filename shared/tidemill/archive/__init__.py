"""The archive: every accepted event, whole, in one table for each event."""
