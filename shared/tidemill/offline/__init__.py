"""The offline store's parts: Delta tables whose commits carry positions, tables that mirror topics, and the worker that fills them."""
