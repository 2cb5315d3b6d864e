"""The report of a training: one HTML file with its own pictures, which loads nothing."""
