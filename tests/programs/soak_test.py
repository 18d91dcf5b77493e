#!/usr/bin/env python3
"""Connections that come, live and go: ten thousand and more opened and closed while a few hundred live, messages of
one byte to a megabyte, checked; now and then one leaves the ring. Afterwards descriptors, mappings and memory are
what they were.

    soak_test.py [--seconds SECONDS]
"""

import argparse
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from harness.case import OWN_NAMESPACE, Case, connect, main, on_ring, seeded
from harness.wait import until

SERVER = r"""
import socket, sys, threading, ctypes
def serve(sock):
    with sock:
        while True:
            data = sock.recv(1 << 20)
            if not data:
                return
            sock.sendall(data)
listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
print(listener.getsockname()[1], flush=True)
while True:
    sock, _ = listener.accept()
    threading.Thread(target=serve, args=(sock,), daemon=True).start()
"""
LIVING = 200
seconds = 20.0


def state(pid: int) -> dict[str, int]:
    status = Path(f"/proc/{pid}/status").read_text()
    return {"descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "mappings": len(Path(f"/proc/{pid}/maps").read_text().splitlines()),
            "KiB": int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])}


def exchange(sock: socket.socket, rng: random.Random) -> None:
    data = rng.randbytes(rng.choice((1, 100, 3000, 100_000, 1_000_000) if rng.random() < 0.2 else (1, 100, 3000)))
    sender = threading.Thread(target=sock.sendall, args=(data,)) if len(data) > 100_000 else None
    if sender:
        sender.start()
    else:
        sock.sendall(data)
    got = bytearray()
    while len(got) < len(data):
        part = sock.recv(len(data) - len(got))
        if not part:
            raise AssertionError("the connection ended")
        got += part
    if sender:
        sender.join()
    if got != data:
        raise AssertionError("other bytes came back")


class Soak(Case):
    def test_nothing_grows(self) -> None:
        rng = seeded()
        server = self.start(sys.executable, "-c", SERVER)
        port = int(until(lambda: server.output().partition("\n")[0] if "\n" in server.output() else None,
                         "the server's port", 20))
        living = [connect(port) for _ in range(LIVING)]
        opened = left = fused = 0
        samples: list[dict[int, dict[str, int]]] = []
        begin = time.monotonic()
        sample = begin + seconds / 10
        while time.monotonic() < begin + seconds:
            for _ in range(20):
                sock = connect(port)
                for _ in range(rng.randrange(6)):
                    exchange(sock, rng)
                fused += on_ring(sock)
                if rng.random() < 0.05:  # a stranger gets it, if only for a moment: it leaves the ring
                    ends = socket.socketpair()
                    socket.send_fds(ends[0], [b"x"], [sock.fileno()])
                    for fd in socket.recv_fds(ends[1], 1, 1)[1]:
                        os.close(fd)
                    for end in ends:
                        end.close()
                    exchange(sock, rng)
                    left += 1
                sock.close()
                opened += 1
            for sock in rng.sample(living, 10):
                exchange(sock, rng)
            place = rng.randrange(LIVING)
            living[place].close()
            living[place] = connect(port)
            exchange(living[place], rng)
            opened += 1
            if time.monotonic() > sample:
                sample += seconds / 10
                samples.append({pid: state(pid) for pid in (os.getpid(), server.pid)})
                print(f"{opened:,} connections: {samples[-1]}", flush=True)
        # Each of the living ones has had large messages by then, and what they use has its size.
        early = samples[len(samples) // 2]
        late = {pid: state(pid) for pid in early}
        for sock in living:
            sock.close()
        print(f"{opened:,} connections, {fused:,} of the short ones fused, {left:,} left the ring; "
              f"{early} -> {late}", flush=True)
        self.assertGreater(fused, 0)
        for pid, before in early.items():
            now = late[pid]
            self.assertLessEqual(now["descriptors"], before["descriptors"] + 20)
            self.assertLessEqual(now["mappings"], before["mappings"] + 60)
            self.assertLessEqual(now["KiB"], before["KiB"] * 1.15 + 20_000)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    known, rest = parser.parse_known_args()
    seconds = known.seconds
    if OWN_NAMESPACE in os.environ:
        sys.argv[1:] = rest
    main()
