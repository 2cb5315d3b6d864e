"""The offline writer: view topics into Delta tables, every record once; events whole into the archive."""
