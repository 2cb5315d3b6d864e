"""Feature serving: the features of entities as of now or of a given moment, in Feast's wire format."""
