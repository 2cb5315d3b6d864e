"""Retraining: a trigger, a training, a gate, a promotion; every step a record."""
