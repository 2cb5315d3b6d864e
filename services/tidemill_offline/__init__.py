"""The offline writer: view topics into Delta tables, every record once."""
