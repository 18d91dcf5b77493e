#!/usr/bin/env python3
"""Programs behind a web server as people have them: Varnish in front of nginx, and behind that, over TCP, PHP (FastCGI,
a process for each request at a time), uWSGI (its own protocol) and gunicorn (HTTP, forked workers)."""

import hashlib
import os
import random
from pathlib import Path

from harness.case import free_port, listening, main
from harness.compared import LANES, Compared, Lane, scaled
from harness.process import Program

#: The three are asked the same: bytes of a size, and the sum of what was sent.
PHP = """<?php
if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    echo hash('sha256', file_get_contents('php://input'));
} else {
    echo str_repeat('a', intval($_GET['size']));
}
"""
WSGI = """
import hashlib
def application(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        answer = hashlib.sha256(body).hexdigest().encode()
    else:
        answer = b"a" * int(environ["QUERY_STRING"].partition("=")[2])
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer[at:at + 50_000] for at in range(0, len(answer), 50_000)]
"""
UPSTREAMS = ("php", "uwsgi", "gunicorn")
SIZES = (1, 70_000, 1_500_000, scaled(5000, 30_000_000))
UPLOAD = scaled(700_000, 40_000_000)
ROOT = os.getuid() == 0


class Upstreams(Compared):
    def setUp(self) -> None:
        super().setUp()
        self.folder.chmod(0o777)
        (self.folder / "index.php").write_text(PHP)
        (self.folder / "work.py").write_text(WSGI)
        (self.folder / "body").write_bytes(random.Random(7).randbytes(UPLOAD))

    def php(self, lane: Lane, port: int) -> Program:
        configuration = self.folder / f"php-{lane.name}.conf"
        user = "user = root\ngroup = root\n" if ROOT else ""
        configuration.write_text(f"""
[global]
error_log = /dev/stderr
daemonize = no
[www]
{user}listen = 127.0.0.1:{port}
pm = static
pm.max_children = 3
clear_env = no
php_admin_value[post_max_size] = 100M
""")
        return self.start(php_fpm(), "--nodaemonize", *(("--allow-to-run-as-root",) if ROOT else ()),
                          "--fpm-config", configuration, front=lane.server)

    def uwsgi(self, lane: Lane, port: int) -> Program:
        return self.start("uwsgi", "--socket", f"127.0.0.1:{port}", "--plugin", "python3", "--chdir", self.folder,
                          "--wsgi-file", self.folder / "work.py", "--processes", "2", "--master", "--die-on-term",
                          "--disable-logging", "--buffer-size", "8192", front=lane.server)

    def gunicorn(self, lane: Lane, port: int) -> Program:
        return self.start("gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "2", "--threads", "2",
                          "--keep-alive", "30", "--chdir", self.folder, "--worker-tmp-dir", self.folder, "work",
                          front=lane.server)

    def nginx(self, lane: Lane, port: int, behind: dict[str, int]) -> Program:
        folder = self.folder / f"nginx-{lane.name}"
        folder.mkdir()
        user = "user root;" if ROOT else ""
        (folder / "conf").write_text(f"""
daemon off; {user} worker_processes 1; pid {folder}/pid; error_log stderr warn;
events {{ worker_connections 500; }}
http {{
    access_log off; client_max_body_size 200m; keepalive_requests 1000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream php {{ server 127.0.0.1:{behind['php']}; keepalive 2; }}
    upstream gunicorn {{ server 127.0.0.1:{behind['gunicorn']}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        location /php {{
            fastcgi_pass php; fastcgi_keep_conn on; include /etc/nginx/fastcgi_params;
            fastcgi_param SCRIPT_FILENAME {self.folder}/index.php;
        }}
        location /uwsgi {{ uwsgi_pass 127.0.0.1:{behind['uwsgi']}; include /etc/nginx/uwsgi_params; }}
        location /gunicorn {{
            proxy_pass http://gunicorn; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_request_buffering off;
        }}
    }}
}}
""")
        return self.start("nginx", "-c", folder / "conf", front=lane.server)

    def varnish(self, lane: Lane, port: int, nginx: int) -> Program:
        folder = self.folder / f"varnish-{lane.name}"
        # Each request goes through to nginx: what is tested is not what Varnish remembers.
        return self.start("varnishd", "-F", "-j", "none", "-n", folder, "-a", f"127.0.0.1:{port}", "-b",
                          f"127.0.0.1:{nginx}", "-s", "malloc,64m", "-p", "default_ttl=0", "-p", "default_grace=0",
                          "-p", "thread_pool_min=5", "-p", "thread_pools=1", "-T", "none", front=lane.server)

    def test_behind_a_web_server(self) -> None:
        body = (self.folder / "body").read_bytes()

        def scenario(lane: Lane) -> object:
            behind = {name: free_port() for name in UPSTREAMS}
            port, front = free_port(), free_port()
            programs = {behind[name]: getattr(self, name)(lane, behind[name]) for name in UPSTREAMS}
            programs[port] = self.nginx(lane, port, behind)
            programs[front] = self.varnish(lane, front, port)
            for where, program in programs.items():
                listening(program, where)
            results = []
            for base in (f"http://127.0.0.1:{port}", f"http://127.0.0.1:{front}"):
                for name in UPSTREAMS:
                    # One curl, several requests: its connection is kept.
                    urls = [f"{base}/{name}?size={size}" for size in SIZES]
                    got = self.start("curl", "-sS", "--fail", "--max-time", "50", *urls, front=lane.client).succeed()
                    self.assertEqual(len(got), sum(SIZES), (base, name))
                    self.assertEqual(set(got), {"a"})
                    for how in ([], ["-H", "Transfer-Encoding: chunked"]):
                        if how and name == "gunicorn":  # its request is not buffered, and has no length then
                            continue
                        got = self.start("curl", "-sS", "--fail", "--max-time", "50", "-H", "Expect:", *how,
                                         "--data-binary", f"@{self.folder}/body", f"{base}/{name}",
                                         front=lane.client).succeed()
                        self.assertEqual(got, hashlib.sha256(body).hexdigest(), (base, name))
                    results.append((name, sum(SIZES), got))
            for name in UPSTREAMS[:scaled(1, 3)]:
                text = self.start("wrk", "-t1", "-c4", f"-d{scaled(1, 10)}s",
                                  "--timeout", "20s", f"http://127.0.0.1:{front}/{name}?size=3000", front=lane.client).succeed()
                self.assertNotIn("Non-2xx", text)
                self.assertNotIn("Socket errors", text)
            return results

        self.compare(scenario, fused=10, inside=True, lanes=LANES)


def php_fpm() -> str:
    found = sorted(Path("/usr/sbin").glob("php-fpm*"))
    return str(found[-1]) if found else "php-fpm"


if __name__ == "__main__":
    main(needs=["nginx", php_fpm(), "uwsgi", "gunicorn", "varnishd", "curl", "wrk"])
