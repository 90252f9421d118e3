"""A handler for `exec:`, many messages at once: each waits in a thread of its own, and answers in any order."""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

WORK_S = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
AT_ONCE = int(sys.argv[2]) if len(sys.argv) > 2 else 250
writing = threading.Lock()


def process(message):
    """The work: here it waits, and the payload is its own result."""
    time.sleep(WORK_S)
    return message["payload"] if "payload" in message else None


def answer(line):
    message = json.loads(line)
    try:
        said = {"position": message["position"], "payload": process(message)}
    except Exception as error:  # it may succeed next time
        said = {"position": message["position"], "error": repr(error)}
    with writing:
        print(json.dumps(said), flush=True)


with ThreadPoolExecutor(AT_ONCE) as threads:
    # Ends when standard input does: that is how Conga tells it to.
    for line in sys.stdin:
        threads.submit(answer, line)
