"""A till that serves one customer at a time, and says in each answer to its readiness probe how long its line is.

That number is what the Unit is scaled by: a line that grows opens another till, and a shop without customers has none.

    curl http://127.0.0.1:8060/
"""

import http.server
import json
import os
import signal
import sys
import threading
import time

CONTAINER = os.environ.get("COCKTAIL_CONTAINER", "by-hand")
PORT = int(os.environ.get("PORT", "8060"))
SERVING_SECONDS = 0.25


class Line:
    """Customers in the line, from the moment they come until they have their answer."""

    def __init__(self):
        self.count = 0
        self.counting = threading.Lock()
        self.serving = threading.Lock()

    def __enter__(self):
        with self.counting:
            self.count += 1

    def __exit__(self, *_error):
        with self.counting:
            self.count -= 1


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A client that stops in the middle of a request must not hold its thread for ever.
    timeout = 30

    def do_GET(self):
        if self.path == "/healthy":
            self.answer(200, {"queue": self.server.line.count})
        elif self.path == "/":
            line = self.server.line
            with line:
                with line.serving:
                    time.sleep(SERVING_SECONDS)
                self.answer(200, {"paid": True, "till": CONTAINER})
        else:
            self.answer(404, {"error": "there is / and /healthy"})

    def answer(self, status, body):
        data = (json.dumps(body) + "\n").encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args):
        """Requests are not logged: the readiness probe alone would fill the log."""


class Server(http.server.ThreadingHTTPServer):
    # Connections that are kept open without a request must not keep it from closing.
    daemon_threads = True
    request_queue_size = 128


def main():
    server = Server(("127.0.0.1", PORT), Handler)
    server.line = Line()
    print(json.dumps({"level": "info", "msg": "opened"}), flush=True)

    def end(_number, _frame):
        # `shutdown` waits for the loop below, which runs on this thread: so another one calls it.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    server.serve_forever(poll_interval=0.1)
    # Customers who were let in are served before it closes.
    while server.line.count:
        time.sleep(0.05)
    server.server_close()
    print(json.dumps({"level": "info", "msg": "closed"}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
