"""Proof: that the online store is the fold of the offline rows, and that a logged prediction can be recomputed bit for bit."""
