"""A handler for `exec:`, many messages at once: each waits in a thread of its own, and answers in any order."""

import json
import sys
import threading
import time
from queue import SimpleQueue

WORK_S = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
AT_ONCE = int(sys.argv[2]) if len(sys.argv) > 2 else 250
lines = SimpleQueue()
writing = threading.Lock()


def process(message):
    """The work: here it waits, and the payload is its own result."""
    time.sleep(WORK_S)
    return message["payload"] if "payload" in message else None


def answer():
    while line := lines.get():
        message = json.loads(line)
        try:
            said = {"position": message["position"], "payload": process(message)}
        except Exception as error:  # it may succeed next time
            said = {"position": message["position"], "error": repr(error)}
        said = json.dumps(said) + "\n"
        with writing:
            sys.stdout.write(said)
            sys.stdout.flush()


# Starting a thread takes longer than handing it a message.
threads = [threading.Thread(target=answer) for _ in range(AT_ONCE)]
for thread in threads:
    thread.start()
# Heard with --exec-ready: until then there are no messages.
print('{"ready":true}', flush=True)

# Ends when standard input does: that is how Conga tells it to.
for line in sys.stdin:
    lines.put(line)
for _ in threads:
    lines.put("")
