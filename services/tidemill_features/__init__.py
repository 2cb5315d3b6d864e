"""Feature computation: folds view topics into the online store, exactly once."""
