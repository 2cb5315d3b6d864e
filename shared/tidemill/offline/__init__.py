"""The offline store: Delta tables whose commits carry positions, tables that mirror topics, and the worker that fills them."""
