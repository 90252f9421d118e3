// A handler for `http://`: a CloudEvent comes in, the body of the answer is the result. With `h2` as its third argument it
// speaks HTTP/2, for `--http2`: then all messages of a processor come over one connection.
import { setTimeout as sleep } from "node:timers/promises";

const [port = 8080, workMs = 0] = process.argv.slice(2).map(Number);
const { createServer } = await import(process.argv[4] === "h2" ? "node:http2" : "node:http");

const server = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", async () => {
    await sleep(workMs);
    response.writeHead(200, { "content-type": request.headers["content-type"] });
    response.end(Buffer.concat(parts));
  });
});
server.listen({ port, host: "127.0.0.1", backlog: 1024 }, () => console.log(server.address().port));
