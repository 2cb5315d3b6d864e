"""The offline writer: view topics, requests and outcomes into Delta tables, every record once; events whole into the archive."""
