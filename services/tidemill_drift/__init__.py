"""Drift detection: live inputs, outputs and performance against what a model was trained on."""
