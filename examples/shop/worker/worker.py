"""Works through a queue folder: counts the words of each text file that is dropped into it.

The folder is the Unit's shared volume, so any number of workers may look into it. Whoever renames a file first has it:
a rename is atomic, so no job is done twice. TERM finishes the job at hand and ends with 0.
"""

import json
import os
import pathlib
import signal
import sys
import threading
import time

CONTAINER = os.environ.get("COCKTAIL_CONTAINER", "by-hand")
QUEUE = pathlib.Path(os.environ.get("COCKTAIL_VOLUME_QUEUE", "queue"))
LOOK_SECONDS = 0.5
REPORT_SECONDS = 30.0
# A job whose worker died is taken over after this time.
ABANDONED_SECONDS = 60.0

ending = threading.Event()


def log(message, level="info", **facts):
    """Writes one JSON object on one line: `cocktail logs` tells it as a line, with `-o json` it is as it stands."""
    print(json.dumps({"time": now(), "level": level, "msg": message, **facts}), flush=True)


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def take():
    """Renames one waiting file to a name of ours; None if nothing waits."""
    for waiting in sorted(QUEUE.glob("*.txt")):
        taken = QUEUE / f"{waiting.stem}.{CONTAINER}.taken"
        try:
            waiting.rename(taken)
            # The age of a taken file is the time since it was taken, not since it was written.
            os.utime(taken)
            return waiting.name, taken
        except FileNotFoundError:
            continue  # Another worker was quicker.
    return None


def work(name, taken):
    """Does one job and leaves its result beside the queue's files."""
    try:
        text = taken.read_text(encoding="utf-8", errors="replace")
        result = {"file": name, "words": len(text.split()), "by": CONTAINER}
        done = QUEUE / f"{pathlib.Path(name).stem}.done.json"
        draft = done.with_name(f".{done.name}.{CONTAINER}")
        draft.write_text(json.dumps(result) + "\n", encoding="utf-8")
        draft.replace(done)
        taken.unlink()
    except OSError as error:
        log("failed", "error", file=name, error=str(error))
    else:
        log("done", file=name, words=result["words"])


def give_back():
    """Puts jobs back that a worker took and never finished."""
    for taken in QUEUE.glob("*.taken"):
        try:
            if time.time() - taken.stat().st_mtime > ABANDONED_SECONDS:
                name = taken.name.rsplit(".", 2)[0] + ".txt"
                taken.rename(QUEUE / name)
                log("put back", file=name)
        except FileNotFoundError:
            continue


def main():
    def end(number, _frame):
        log("ending", signal=signal.Signals(number).name)
        ending.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    if not QUEUE.is_dir():
        log("no queue", "error", folder=str(QUEUE))
        return 1
    log("started", queue=str(QUEUE))
    jobs, report_at = 0, time.monotonic() + REPORT_SECONDS
    while not ending.is_set():
        job = take()
        if job:
            work(*job)
            jobs += 1
            continue
        if time.monotonic() >= report_at:
            give_back()
            log("idle", jobs=jobs)
            report_at = time.monotonic() + REPORT_SECONDS
        ending.wait(LOOK_SECONDS)
    log("ended", jobs=jobs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
