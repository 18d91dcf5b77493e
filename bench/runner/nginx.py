"""nginx with wrk: one worker, keep-alive, a small body from memory."""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path
from shutil import which

from . import witness
from .lanes import Lane
from .process import Failed, Program, free_port, wait_for_port

CONFIGURATION = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    server {{
        listen 127.0.0.1:{port};
        location / {{ return 200 "{body}"; }}
    }}
}}
"""


def _nginx() -> str | None:
    return which("nginx") or which("nginx", path="/usr/sbin:/usr/local/sbin")


def missing() -> str | None:
    absent = [name for name, path in (("nginx", _nginx()), ("wrk", which("wrk"))) if path is None]
    return f"{', '.join(absent)} not installed" if absent else None


def requests(lane: Lane, connections: int, seconds: float) -> float:
    """@return requests per second of a fresh nginx."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        configuration = Path(folder) / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(
            user="user root;" if os.geteuid() == 0 else "", folder=folder, port=port, body="x" * 64))
        command = [*lane.server, str(_nginx()), "-p", folder, "-c", str(configuration), "-e", "stderr"]
        with Program(command, lane.server_cpu) as server:
            wait_for_port(server, port)
            client = Program([*lane.client, "wrk", "-t", "1", "-c", str(connections), "-d",
                              f"{max(1, round(seconds))}s", f"http://127.0.0.1:{port}/"], lane.client_cpu)
            with client:
                time.sleep(seconds * 0.5)
                client.require_alive()
                witness.require_lane(port, lane.expect)
                text = client.output(seconds * 5 + 30)
            server.require_alive()
    found = re.search(r"Requests/sec:\s*([\d.]+)", text)
    if found is None or re.search(r"Socket errors|Non-2xx", text):
        raise Failed(f"wrk reported: {text[-300:]}")
    return float(found.group(1))
