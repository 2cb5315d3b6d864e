"""A service that ends at once because its setting is wrong."""

raise SystemExit("setting FROBNICATE is missing: set it to a number")
