#!/usr/bin/env python3
"""nginx (files by sendfile, proxying, keepalive, two workers, reload), Node's http, curl and wrk."""

import concurrent.futures
import hashlib
import os
import random
import re
import signal
from pathlib import Path

from harness import observe
from harness.case import FAST, Case, connect, free_port, main
from harness.process import Program, fast, session_members
from harness.wait import until

NODE = """
const http = require('http'), crypto = require('crypto');
const server = http.createServer((request, response) => {
  const hash = crypto.createHash('sha256');
  let size = 0;
  request.on('data', part => { hash.update(part); size += part.length; });
  request.on('end', () => {
    if (request.url.startsWith('/bytes/')) {
      response.end(Buffer.alloc(Number(request.url.slice(7)), 'node'));
    } else {
      response.end(JSON.stringify({ url: request.url, size, sha: hash.digest('hex') }));
    }
  });
});
server.listen(Number(process.argv[2]), '127.0.0.1');
process.on('SIGTERM', () => { server.close(() => process.exit(0)); server.closeAllConnections(); });
"""

NODE_CLIENT = """
const http = require('http'), crypto = require('crypto');
const agent = new http.Agent({ keepAlive: true, maxSockets: 10 });
function post(size) {
  return new Promise((resolve, reject) => {
    const body = crypto.randomBytes(size), sha = crypto.createHash('sha256').update(body).digest('hex');
    const request = http.request({ port: Number(process.argv[2]), host: '127.0.0.1', method: 'POST', path: '/echo', agent },
      response => {
        let text = '';
        response.on('data', part => text += part);
        response.on('end', () => {
          const got = JSON.parse(text);
          if (got.size !== size || got.sha !== sha) reject(new Error('differs: ' + text)); else resolve();
        });
      });
    request.on('error', reject);
    request.end(body);
  });
}
(async () => {
  const sizes = [1, 100, 5000, 70000, 1000000];
  for (let round = 0; round < 40; ++round)
    await Promise.all(sizes.concat(sizes).map(post));
  console.log('all the same');
  process.exit(0);
})().catch(error => { console.error(error); process.exit(1); });
"""

BACKEND = """
import hashlib, http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(b"b" * int(self.path.rpartition("/")[2]))
    def do_POST(self):
        self.answer(hashlib.sha256(self.rfile.read(int(self.headers["Content-Length"]))).hexdigest().encode())
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Nginx(Case):
    def nginx(self, front: tuple[str, ...] = FAST, backend: int = 9) -> tuple[Program, int]:
        port = free_port()
        files = self.folder / "files"
        files.mkdir(exist_ok=True)
        for size in (0, 1, 5000, 65536, 3_000_000, 20_000_000):
            (files / str(size)).write_bytes(random.Random(size).randbytes(size))
        self.folder.chmod(0o755)
        configuration = self.folder / "nginx.conf"
        user = "user root;" if os.getuid() == 0 else ""
        configuration.write_text(f"""
daemon off; {user} worker_processes 2; pid {self.folder}/nginx.pid; error_log stderr warn;
events {{ worker_connections 2000; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; client_max_body_size 50m;
    client_body_temp_path {self.folder}/body; proxy_temp_path {self.folder}/proxy;
    fastcgi_temp_path {self.folder}/fastcgi; uwsgi_temp_path {self.folder}/uwsgi; scgi_temp_path {self.folder}/scgi;
    upstream backend {{ server 127.0.0.1:{backend}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        root {files};
        location /backend/ {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}
""")
        return self.serve(port, "nginx", "-c", configuration, front=front), port

    def get(self, port: int, path: str, front: tuple[str, ...] = FAST, *options: str) -> bytes:
        target = self.folder / f"got-{random.randrange(10**12)}"
        self.start("curl", "-sS", "--fail", "--max-time", "50", "-o", target, *options,
                   f"http://127.0.0.1:{port}/{path}", front=front).succeed()
        return target.read_bytes() if target.exists() else b""

    def test_files(self) -> None:
        """Whole files and ranges, one by one and many in one connection, by clients of both kinds."""
        server, port = self.nginx()
        for front in (FAST, (), fast("--threshold", "0")):
            for size in (0, 1, 5000, 65536, 3_000_000, 20_000_000):
                self.assertTrue(self.get(port, str(size), front) == random.Random(size).randbytes(size), f"{size}")
            part = self.get(port, "3000000", front, "-r", "1000000-1999999")
            self.assertTrue(part == random.Random(3_000_000).randbytes(3_000_000)[1_000_000:2_000_000])
            several = ["5000", "65536", "3000000", "1", "65536"]
            self.start("curl", "-sS", "--fail", "--max-time", "50", "--remote-name-all", "--parallel",
                       *(f"http://127.0.0.1:{port}/{name}" for name in several[:3]), front=front, cwd=self.folder).succeed()
            for name in several[:3]:
                self.assertTrue((self.folder / name).read_bytes() == random.Random(int(name)).randbytes(int(name)))
            got = self.folder / "several"
            self.start("bash", "-c", 'exec curl -sS --fail --max-time 50 "$@" >several', "bash",
                       *(f"http://127.0.0.1:{port}/{name}" for name in several), front=front, cwd=self.folder).succeed()
            self.assertTrue(got.read_bytes() == b"".join(random.Random(int(n)).randbytes(int(n)) for n in several))
        self.assertEqual(server.stop(signal.SIGQUIT), 0)

    def test_keepalive_and_reload(self) -> None:
        """wrk over kept connections, with a reload in the middle: new workers, no failed request."""
        server, port = self.nginx()
        for path, connections in (("5000", 40), ("65536", 10)):
            load = self.load_on_ring(
                lambda: self.start("wrk", "-t2", f"-c{connections}", "-d3s", "--timeout", "20s", "--latency",
                                   f"http://127.0.0.1:{port}/{path}"),
                lambda: sum(observe.lanes(worker)["ring"] for worker in self.workers(server)) >= connections // 2)
            before = set(self.workers(server))
            os.kill(server.pid, signal.SIGHUP)
            until(lambda before=before: set(self.workers(server)) - before, "new workers")
            text = load.succeed(30)
            self.assertNotIn("Non-2xx", text)
            # A worker that ends closes connections at rest: wrk counts each as one read error and connects anew.
            errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
            if errors:
                self.assertEqual((errors[1], errors[4]), ("0", "0"), text)
                self.assertLessEqual(int(errors[2]) + int(errors[3]), connections, text)
            self.assertGreater(int(re.search(r"(\d+) requests in", text)[1]), 200)
            until(lambda before=before: not before & set(self.workers(server)), "the old workers end")
        for worker in self.workers(server):
            until(lambda worker=worker: observe.segments(worker) == 0, "no segment is left in a worker")

    @staticmethod
    def workers(server: Program) -> list[int]:
        found = []
        for pid in session_members(server.pid):
            try:
                if b"worker process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
            except OSError:
                continue
        return found

    def test_proxy(self) -> None:
        """Three programs in a row: client, nginx, and a Python or Node server behind it."""
        for command in (["python3", "-c", BACKEND], ["node", "-e", NODE, "--"]):
            if command[0] == "node":
                (self.folder / "server.js").write_text(NODE)
                command = ["node", self.folder / "server.js"]
            backend = free_port()
            behind = self.serve(backend, *command, str(backend))
            server, port = self.nginx(backend=backend)
            body = self.folder / "sent"
            body.write_bytes(os.urandom(5_000_000))
            for front in (FAST, ()):
                answer = self.get(port, "backend/hash", front, "-H", "Expect:", "--data-binary", f"@{body}")
                self.assertIn(hashlib.sha256(body.read_bytes()).hexdigest().encode(), answer)
                if command[0] == "python3":
                    for size in (1, 100, 70_000, 4_000_000):
                        self.assertTrue(self.get(port, f"backend/{size}", front) == b"b" * size)
            load = self.load_of(behind, backend, 1, "wrk", "-t1", "-c8", "-d2s", "--timeout", "20s",
                                f"http://127.0.0.1:{port}/backend/3000")
            text = load.succeed(30)
            self.assertNotIn("Non-2xx", text)
            self.assertNotIn("Socket errors", text)
            server.stop(signal.SIGQUIT)
            behind.close()

    def test_killed_worker(self) -> None:
        """A worker dies with its connections: the clients see the end at once, the next ones are served."""
        server, port = self.nginx()
        clients = [connect(port, seconds=10) for _ in range(10)]
        for client in clients:
            self.addCleanup(client.close)
            for _ in range(3):
                client.sendall(b"GET /5000 HTTP/1.1\r\nHost: x\r\nX-Fill: " + b"f" * 3000 + b"\r\n\r\n")
                received = b""
                while len(received) < 5000 or not received.endswith(random.Random(5000).randbytes(5000)):
                    received += client.recv(65536)
        for worker in self.workers(server):
            os.kill(worker, signal.SIGKILL)
        for client in clients:
            try:
                self.assertEqual(client.recv(1), b"")
            except ConnectionError:
                pass
        self.assertEqual(len(self.get(port, "5000")), 5000)


class Node(Case):
    def test_server_and_client(self) -> None:
        """Node on both ends (libuv), then each with curl."""
        (self.folder / "server.js").write_text(NODE)
        (self.folder / "client.js").write_text(NODE_CLIENT)
        port = free_port()
        server = self.serve(port, "node", self.folder / "server.js", str(port))
        for front in (FAST, ()):
            if front:
                client = self.load_of(server, port, 1, "node", self.folder / "client.js", str(port))
            else:
                client = self.start("node", self.folder / "client.js", str(port), front=())
            self.assertEqual(client.succeed(), "all the same\n")
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            sizes = [0, 1, 50_000, 8_000_000] * 2
            programs = [self.start("curl", "-sS", "--fail", f"http://127.0.0.1:{port}/bytes/{size}", front=front)
                        for size in sizes for front in (FAST, ())]
            for program, text in zip(programs, pool.map(lambda one: one.succeed(), programs)):
                size = int(program.command[-1].rpartition("/")[2])
                self.assertTrue(text == ("node" * (size // 4 + 1))[:size], f"{size}")
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    main(needs=["nginx", "curl", "wrk", "node"])
