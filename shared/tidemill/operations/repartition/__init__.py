"""A view's log under another partition count: an exact copy of its records, in an order that both folds agree on."""
