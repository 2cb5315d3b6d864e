"""A service that becomes ready, says what it was given, and tells its state over HTTP."""

import http.server
import json
import os
import signal
import sys

NAMES = ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "TIDEMILL_OFFLINE", "TIDEMILL_PROJECT", "TIDEMILL_HOST", "TIDEMILL_PORT", "TIDEMILL_NICE")


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every path with the settings this process got."""

    def do_GET(self) -> None:
        """Answer 200 with the settings."""
        body = json.dumps({"pid": os.getpid(), "argv": sys.argv, **{name: os.environ.get(name) for name in NAMES}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def leave(_number: int, _frame: object) -> None:
    """Say that the stop was a clean one."""
    print("ends in good order", flush=True)
    sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    print("serves", flush=True)
    http.server.ThreadingHTTPServer((os.environ["TIDEMILL_HOST"], int(os.environ["TIDEMILL_PORT"])), Handler).serve_forever()
