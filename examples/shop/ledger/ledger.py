"""Keeps a ledger on a volume: every start and every POST is one line of a file, and GET answers how many there are.

The volume is exclusive, so two ledgers never write at once; a replacement finds what its predecessor wrote.

    curl http://127.0.0.1:8090/                    the count
    curl --data 'two apples' http://127.0.0.1:8090/  one more line
"""

import http.server
import json
import os
import pathlib
import signal
import sys
import threading
import time

CONTAINER = os.environ.get("COCKTAIL_CONTAINER", "by-hand")
PORT = int(os.environ.get("PORT", "8090"))
LEDGER = pathlib.Path(os.environ.get("COCKTAIL_VOLUME_DATA", "data")) / "ledger.jsonl"
LONGEST_ENTRY = 4096


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def log(message, **facts):
    """Writes one JSON object on one line."""
    print(json.dumps({"time": now(), "level": "info", "msg": message, **facts}), flush=True)


class Book:
    """The file with its count. Requests come on threads, so both change under one lock."""

    def __init__(self, path):
        self.lock = threading.Lock()
        # Every line ends with a line break; what a crash cut off is ended here, so that it stays one line.
        self.file = open(path, "a+b", buffering=0)
        self.file.seek(0)
        whole = self.file.read()
        if whole and not whole.endswith(b"\n"):
            self.file.write(b"\n")
        self.count = whole.count(b"\n") + (1 if whole and not whole.endswith(b"\n") else 0)

    def add(self, text):
        """Appends one entry and returns the new count; it is on disk when this returns."""
        line = json.dumps({"at": now(), "by": CONTAINER, "text": text}) + "\n"
        with self.lock:
            self.file.write(line.encode("utf-8"))
            os.fsync(self.file.fileno())
            self.count += 1
            return self.count


class Handler(http.server.BaseHTTPRequestHandler):
    # Connections stay open between requests, as most clients expect.
    protocol_version = "HTTP/1.1"
    # A client that stops in the middle of a request must not hold its thread for ever.
    timeout = 30

    def do_GET(self):
        if self.path == "/healthy":
            self.answer(200, {"healthy": True})
        elif self.path == "/":
            self.answer(200, {"entries": self.server.book.count, "container": CONTAINER})
        else:
            self.answer(404, {"error": "there is / and /healthy"})

    def do_POST(self):
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= LONGEST_ENTRY:
            self.close_connection = True
            self.answer(413 if length > LONGEST_ENTRY else 411, {"error": f"an entry has up to {LONGEST_ENTRY} bytes"})
            return
        text = self.rfile.read(length).decode("utf-8", errors="replace")
        count = self.server.book.add(text)
        log("entry", entries=count)
        self.answer(201, {"entries": count, "container": CONTAINER})

    def answer(self, status, body):
        data = (json.dumps(body) + "\n").encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args):
        """Requests are not logged: the readiness probe alone would fill the log."""


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    server.daemon_threads = True
    server.book = Book(LEDGER)
    log("opened", entries=server.book.add("opened"), file=str(LEDGER))

    def end(number, _frame):
        log("ending", signal=signal.Signals(number).name)
        # `shutdown` waits for the loop below, which runs on this thread: so another one calls it.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    log("closed", entries=server.book.count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
