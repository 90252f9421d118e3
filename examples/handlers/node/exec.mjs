// A handler for `exec:`, many messages at once: each is awaited by itself, and answered in any order.
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const workMs = Number(process.argv[2] ?? 0);

async function work(message) {
  await sleep(workMs);
  return message.payload ?? null;
}

// Heard with --exec-ready: until then there are no messages.
console.log('{"ready":true}');

// Ends when standard input does: that is how Conga tells it to.
for await (const line of createInterface({ input: process.stdin })) {
  const message = JSON.parse(line);
  const { position } = message;
  work(message).then(
    (payload) => console.log(JSON.stringify({ position, payload })),
    (error) => console.log(JSON.stringify({ position, error: String(error) })),
  );
}
