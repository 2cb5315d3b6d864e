"""How long tests wait for something that always comes, for a process, a server or a thread.

Long enough for any machine: it ends tests that hang, and measures nothing. `tests/repo/test_patience.py` finds waits that are shorter.
"""

PATIENCE_SECONDS = 180.0
