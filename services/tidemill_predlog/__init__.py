"""Prediction logging: every prediction into a Delta table once, joined with its outcome or marked as never answered."""
