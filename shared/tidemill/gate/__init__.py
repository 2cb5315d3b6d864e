"""The gate: whether a challenger may take the champion's place, from what both answered and what became of it. Pure."""
