"""The continuous audit: compares the online store with the offline rows, round after round, and reports differences."""
