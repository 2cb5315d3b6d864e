"""A program that runs a stack until it is told to stop: ``run_stack.py HOME SERVER,SERVER SERVICE=MODULE ...``."""

import signal
import sys
from pathlib import Path

from tidemill.local.services import LocalService
from tidemill.local.stack import Stack

if __name__ == "__main__":
    home, servers, *pairs = sys.argv[1:]
    services = [LocalService(name, module, ()) for name, module in (pair.split("=") for pair in pairs)]
    with Stack(Path(home), services=services, servers=[name for name in servers.split(",") if name]):
        print("ready", flush=True)
        signal.pause()
