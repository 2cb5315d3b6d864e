"""Features, labels and training rows computed a second time, in SQL from the archive, and compared with what tidemill says they are."""
