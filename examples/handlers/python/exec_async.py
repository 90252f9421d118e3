"""A handler for `exec:` by asyncio, many messages at once in one thread, for work that awaits."""

import asyncio
import json
import sys

WORK_S = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0


async def process(message):
    """The work: here it waits, and the payload is its own result."""
    await asyncio.sleep(WORK_S)
    return message["payload"] if "payload" in message else None


async def answer(line):
    message = json.loads(line)
    try:
        said = {"position": message["position"], "payload": await process(message)}
    except Exception as error:  # it may succeed next time
        said = {"position": message["position"], "error": repr(error)}
    print(json.dumps(said), flush=True)


async def main():
    reader = asyncio.StreamReader(limit=1 << 24)  # a line may be long
    reading = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: reading, sys.stdin)
    # Heard with --exec-ready: until then there are no messages.
    print('{"ready":true}', flush=True)
    # Ends when standard input does: that is how Conga tells it to.
    async with asyncio.TaskGroup() as tasks:
        while line := await reader.readline():
            tasks.create_task(answer(line))


asyncio.run(main())
