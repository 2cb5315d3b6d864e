"""A service that accepts connections and never answers."""

import os
import socket
import time

if __name__ == "__main__":
    with socket.create_server((os.environ["TIDEMILL_HOST"], int(os.environ["TIDEMILL_PORT"]))):
        print("waits for a lock that never comes", flush=True)
        time.sleep(600)
