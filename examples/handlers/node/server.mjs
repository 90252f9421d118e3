// A handler for `http://`: a CloudEvent comes in, the body of the answer is the result.
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const [port = 8080, workMs = 0] = process.argv.slice(2).map(Number);

const server = createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  await sleep(workMs);
  response.writeHead(200, { "content-type": request.headers["content-type"] });
  response.end(Buffer.concat(parts));
});
server.listen({ port, host: "127.0.0.1", backlog: 1024 }, () => console.log(server.address().port));
