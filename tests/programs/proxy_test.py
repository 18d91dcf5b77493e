#!/usr/bin/env python3
"""A chain of proxies: wrk, curl and wget, HAProxy (which hands its listeners to the next process when it reloads),
nginx with two workers (keepalive to an upstream, TLS, chunked bodies, a binary upgrade under load), nginx behind it."""

import hashlib
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

from harness.case import free_port, listening, main
from harness.compared import LONG, Compared, Lane, scaled
from harness.process import Program, session_members
from harness.wait import until

SIZES = (0, 1, 5000, 65536, 3_000_000, *((60_000_000,) if LONG else ()))
LOAD = scaled(2, 20)


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Proxies(Compared):
    def setUp(self) -> None:
        super().setUp()
        self.masters: dict[str, Path] = {}
        self.folder.chmod(0o755)
        files = self.folder / "files"
        files.mkdir()
        for size in SIZES:
            (files / str(size)).write_bytes(content(size))
        (self.folder / "upload").mkdir()
        (self.folder / "upload").chmod(0o777)
        self.start("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                   "-keyout", self.folder / "key", "-out", self.folder / "certificate", front=()).succeed()

    def nginx(self, lane: Lane, name: str, blocks: str) -> Program:
        folder = self.folder / f"{name}-{lane.name}"
        folder.mkdir()
        user = "user root;" if os.getuid() == 0 else ""
        (folder / "conf").write_text(f"""
daemon off; {user} worker_processes 2; pid {folder}/pid; error_log stderr warn;
env LD_PRELOAD; env LOOPFAST; env LOOPFAST_LOG; env LOOPFAST_THRESHOLD;
events {{ worker_connections 2000; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; client_max_body_size 200m;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {blocks}
}}
""")
        # It executes its own path, without a search, and upgrades itself only when its parent has gone.
        program = self.start("bash", "-c", '"$@" & wait_for=$!; trap "exit 0" USR1; wait $wait_for', "bash",
                             shutil.which("nginx"), "-c", folder / "conf", front=lane.server)
        self.masters[name] = folder / "pid"
        return program

    def farm(self, lane: Lane) -> tuple[dict[str, int], dict[str, Program]]:
        """nginx behind, nginx in front of it with and without TLS, HAProxy in front of all."""
        port = {name: free_port() for name in ("behind", "front", "tls", "haproxy")}
        programs = {
            "behind": self.nginx(lane, "behind", f"""
    server {{
        listen 127.0.0.1:{port['behind']}; root {self.folder}/files;
        location /upload/ {{ dav_methods PUT; root {self.folder}; create_full_put_path on; }}
    }}"""),
            "front": self.nginx(lane, "front", f"""
    upstream behind {{ server 127.0.0.1:{port['behind']}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port['front']};
        listen 127.0.0.1:{port['tls']} ssl; ssl_certificate {self.folder}/certificate; ssl_certificate_key {self.folder}/key;
        root {self.folder}/files;
        location /gz/ {{ alias {self.folder}/files/; gzip on; gzip_types *; gzip_comp_level 1; }}  # chunked
        location /files/ {{ alias {self.folder}/files/; }}
        location / {{
            proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_request_buffering off;
        }}
    }}""")}
        (self.folder / "haproxy.cfg").write_text(f"""
global
    maxconn 2000
    nbthread 2
    insecure-setuid-wanted
    stats socket {self.folder}/haproxy-{lane.name} mode 600 expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    http-reuse always
listen all
    bind 127.0.0.1:{port['haproxy']}
    server one 127.0.0.1:{port['front']}
""")
        listening(programs["behind"], port["behind"])
        listening(programs["front"], port["front"])
        programs["haproxy"] = self.serve(port["haproxy"], "haproxy", "-W", "-db", "-f", self.folder / "haproxy.cfg",
                                         front=lane.server)
        return port, programs

    def test_files_and_bodies(self) -> None:
        """Down: with a length, chunked, in ranges, over TLS. Up: with a length and chunked. Through every hop."""

        def scenario(lane: Lane) -> object:
            port, _ = self.farm(lane)
            before = {name: self.holds(pid) for name, pid in self.workers().items()}
            results = []
            bases = (f"http://127.0.0.1:{port['behind']}", f"http://127.0.0.1:{port['front']}",
                     f"https://127.0.0.1:{port['tls']}", f"http://127.0.0.1:{port['haproxy']}")
            for base in bases:
                for size in SIZES:
                    got = self.folder / "got"
                    self.start("curl", "-sSk", "--fail", "-o", got, f"{base}/{size}", front=lane.client).succeed()
                    self.assertEqual(sha(got.read_bytes()) if size else "", sha(content(size)) if size else "", (base, size))
                    got.unlink(missing_ok=True)
                self.start("wget", "-q", "--no-check-certificate", "-O", self.folder / "got", f"{base}/3000000",
                           front=lane.client).succeed()
                self.assertTrue((self.folder / "got").read_bytes() == content(3_000_000))
                several = self.start("bash", "-c", 'exec curl -sSk --fail "$@" >several', "bash",
                                     *(f"{base}/{size}" for size in (5000, 65536, 1, 3_000_000, 5000)),
                                     front=lane.client, cwd=self.folder)
                several.succeed()
                self.assertTrue((self.folder / "several").read_bytes() ==
                                b"".join(content(size) for size in (5000, 65536, 1, 3_000_000, 5000)))
                for how in ([], ["-H", "Transfer-Encoding: chunked"]):
                    name = f"up{random.randrange(10**12)}"
                    self.start("curl", "-sSk", "--fail", *how, "-H", "Expect:", "-T", self.folder / "files" / "3000000",
                               f"{base}/upload/{name}", front=lane.client).succeed()
                    self.assertTrue((self.folder / "upload" / name).read_bytes() == content(3_000_000))
                    (self.folder / "upload" / name).unlink()
                if base != bases[0]:
                    self.start("curl", "-sSk", "--fail", "--compressed", "-D", self.folder / "headers", "-o",
                               self.folder / "got", f"{base}/gz/3000000", front=lane.client).succeed()
                    self.assertIn("transfer-encoding: chunked", (self.folder / "headers").read_text().lower())
                    self.assertTrue((self.folder / "got").read_bytes() == content(3_000_000))
                results.append((len(results), "all the same"))
            for name, pid in self.workers().items():
                # Kept connections to the upstream are no leak; they are as many as there may be.
                self.holds_again(pid, (before[name][0], 16 * 2), 16 * 2 * 2)
            return results

        self.compare(scenario, fused=8, inside=True)

    def master(self, name: str) -> int:
        return int(self.masters[name].read_text())

    def workers(self) -> dict[str, int]:
        found = {}
        for name in ("behind", "front"):
            for pid in until(lambda name=name: len(pids := nginx_workers(self.master(name))) == 2 and pids, "two workers"):
                found[f"{name} {len(found)}"] = pid
        return found

    def load(self, lane: Lane, url: str, connections: int, while_it_runs) -> int:
        """wrk without a failed request but those that a worker's end cuts off. @return requests."""
        load = self.start("wrk", "-t2", f"-c{connections}", f"-d{LOAD}s", "--timeout", "20s", url, front=lane.client)
        time.sleep(0.5)
        while_it_runs()
        text = load.succeed(LOAD + 30)
        self.assertNotIn("Non-2xx", text)
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        if errors:
            self.assertEqual((errors[1], errors[4]), ("0", "0"), text)
            self.assertLessEqual(int(errors[2]) + int(errors[3]), 2 * connections, text)
        return int(re.search(r"(\d+) requests in", text)[1])

    def test_haproxy_reloads_under_load(self) -> None:
        def scenario(lane: Lane) -> object:
            port, programs = self.farm(lane)
            old = set(session_members(programs["haproxy"].pid))

            def reload() -> None:
                os.kill(programs["haproxy"].pid, signal.SIGUSR2)
                until(lambda: set(session_members(programs["haproxy"].pid)) - old, "a new worker", 90)

            self.assertGreater(self.load(lane, f"http://127.0.0.1:{port['haproxy']}/5000", 20, reload), 200)
            self.start("curl", "-sS", "--fail", "-o", self.folder / "after", f"http://127.0.0.1:{port['haproxy']}/65536",
                       front=lane.client).succeed()
            self.assertTrue((self.folder / "after").read_bytes() == content(65536))
            return "reloaded"

        self.compare(scenario, fused=20, inside=True)

    def test_binary_upgrade_under_load(self) -> None:
        """A new master is executed with the listening sockets; the old workers end when their connections do."""

        def scenario(lane: Lane) -> object:
            port, programs = self.farm(lane)
            pid_file, old = self.masters["front"], self.master("front")
            old_workers = set(nginx_workers(old))
            os.kill(programs["front"].pid, signal.SIGUSR1)  # now it has no parent any more
            programs["front"].wait(30)

            def upgrade() -> None:
                os.kill(old, signal.SIGUSR2)
                until(lambda: Path(f"{pid_file}.oldbin").exists() and pid_file.exists() and
                      int(pid_file.read_text() or old) != old, "the new master")
                until(lambda: nginx_workers(self.master("front")), "its workers")
                os.kill(old, signal.SIGQUIT)

            self.assertGreater(self.load(lane, f"http://127.0.0.1:{port['front']}/5000", 20, upgrade), 200)
            until(lambda: ended(old), "the old master ends", 30)
            master = self.master("front")
            workers = set(nginx_workers(master))
            self.assertTrue(workers and not workers & old_workers)
            for path in ("65536", "files/3000000"):
                self.start("curl", "-sS", "--fail", "-o", self.folder / "after", f"http://127.0.0.1:{port['front']}/{path}",
                           front=lane.client).succeed()
                self.assertTrue((self.folder / "after").read_bytes() == content(int(path.rpartition("/")[2])))
            os.kill(master, signal.SIGQUIT)
            until(lambda: ended(master), "the new master ends")
            return "upgraded"

        self.compare(scenario, fused=20, inside=True)

    def test_reload_under_load(self) -> None:
        def scenario(lane: Lane) -> object:
            port, _ = self.farm(lane)

            def reload() -> None:
                before = set(nginx_workers(self.master("front")))
                os.kill(self.master("front"), signal.SIGHUP)
                until(lambda: set(nginx_workers(self.master("front"))) - before, "new workers")

            self.assertGreater(self.load(lane, f"http://127.0.0.1:{port['front']}/5000", 20, reload), 200)
            self.assertGreater(self.load(lane, f"https://127.0.0.1:{port['tls']}/65536", 8, reload), 50)
            return "reloaded"

        self.compare(scenario, fused=20, inside=True)


def ended(pid: int) -> bool:
    """Gone, or waiting for nobody in particular to ask."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def nginx_workers(master: int) -> list[int]:
    try:
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in children
            if b"worker process" in Path(f"/proc/{child}/cmdline").read_bytes()]


if __name__ == "__main__":
    main(needs=["nginx", "haproxy", "wrk", "curl", "wget", "openssl"])
