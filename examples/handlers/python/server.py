"""A handler for `http://`: a CloudEvent comes in, the body of the answer is the result."""

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORK_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet

    def do_POST(self):
        payload = self.rfile.read(int(self.headers["content-length"]))
        time.sleep(WORK_S)
        self.send_response(200)
        self.send_header("content-type", self.headers["content-type"])
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # all of a burst's connections come at once


server = Server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
