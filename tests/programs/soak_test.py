#!/usr/bin/env python3
"""Connections that come, live and go: ten thousand and more opened and closed while a few hundred live, messages of
one byte to a megabyte, checked; now and then one leaves the ring, and now and then a capture runs and all do.
Descriptors, mappings and memory of both processes are the same in the last quarter as in the second one.

    soak_test.py [--seconds SECONDS]
"""

import argparse
import os
import random
import re
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
    data = memoryview(bytearray(65536))  # nothing that would grow by itself
    with sock:
        while True:
            size = sock.recv_into(data)
            if not size:
                return
            sock.sendall(data[:size])
listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
print(listener.getsockname()[1], flush=True)
while True:
    sock, _ = listener.accept()
    threading.Thread(target=serve, args=(sock,), daemon=True).start()
"""
LIVING = 200
SAMPLES = 40
CAPTURES = 12
seconds = 20.0


def state(pid: int) -> dict[str, int]:
    status = Path(f"/proc/{pid}/status").read_text()
    return {"descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "mappings": len(Path(f"/proc/{pid}/maps").read_text().splitlines()),
            **{name: int(re.search(rf"{field}:\s+(\d+) kB", status).group(1))
               for name, field in (("own KiB", "RssAnon"), ("shared KiB", "RssShmem"))}}


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
        # One arena for all threads: what malloc keeps for each is not what is measured here.
        server = self.start(sys.executable, "-c", SERVER, env={"MALLOC_ARENA_MAX": "1"})
        port = int(until(lambda: server.output().partition("\n")[0] if "\n" in server.output() else None,
                         "the server's port", 20))
        living = [connect(port) for _ in range(LIVING)]
        opened = left = fused = captured = 0
        samples: list[dict[int, dict[str, int]]] = []
        begin = time.monotonic()
        capture = None
        while (passed := (time.monotonic() - begin) / seconds) < 1:
            # A capture for a moment: all leave the ring, and new ones are fused when it is over.
            if capture:
                capture.close()
                capture = None
            elif passed > captured / CAPTURES and os.getuid() == 0:
                capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
                capture.bind(("lo", 0))
                captured += 1
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
            if passed > len(samples) / SAMPLES:
                samples.append({pid: state(pid) for pid in (os.getpid(), server.pid)})
                print(f"{opened:,} connections: {samples[-1]}", flush=True)
        for sock in living:
            sock.close()
        if capture:
            capture.close()
        print(f"{opened:,} connections, {fused:,} of the short ones fused, {left:,} left the ring, {captured} captures",
              flush=True)
        self.assertGreater(fused, 0)
        # The first quarter is for what grows to its size once: buffers, slots, the windows of the rings.
        quarter = len(samples) // 4
        for pid, name in ((os.getpid(), "client"), (server.pid, "server")):
            before, now = ({kind: max(sample[pid][kind] for sample in part) for kind in samples[0][pid]}
                           for part in (samples[quarter:2 * quarter], samples[-quarter:]))
            print(f"{name}: at most {before}, later {now}", flush=True)
            self.assertLessEqual(now["descriptors"], before["descriptors"] + 20)
            self.assertLessEqual(now["mappings"], before["mappings"] + 60)
            for kind in ("own KiB", "shared KiB"):
                self.assertLessEqual(now[kind], before[kind] * 1.15 + 4000)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    known, rest = parser.parse_known_args()
    seconds = known.seconds
    if OWN_NAMESPACE in os.environ:
        sys.argv[1:] = rest
    main()
