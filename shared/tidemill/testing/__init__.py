"""Testing a project without servers."""
