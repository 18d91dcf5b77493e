#!/usr/bin/env python3
"""A connection that goes where the library does not follow (an executed program, another process, stdio) while
its writer stands still: SIGSTOP, a frozen control group, a debugger. What he had written is there at once,
also when he is killed afterwards."""

import hashlib
import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

from harness.case import FAST, Case, main
from harness.wait import until

SIZE = 300_000

#: More than the kernel takes where its buffers are small.
MUCH = 2_000_000
BUFFERS = Path("/proc/sys/net/ipv4/tcp_wmem")

#: Writes, and stands still, if it is told to. The exchanges bring both ends onto the ring.
WRITER = """
import hashlib, os, signal, socket, sys, time
end = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for _ in range(60):
    end.sendall(b"x" * 64)
    end.recv(64, socket.MSG_WAITALL)
end.sendall(hashlib.shake_256(b"left behind").digest(int(sys.argv[2])))
print("written", flush=True)
if sys.argv[3] == "stops":
    os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(60)
"""

#: Waits for a line before it gives the connection away, in the way that its argument names.
READER = """
import ctypes, os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
end = listener.accept()[0]
for _ in range(60):
    end.recv(64, socket.MSG_WAITALL)
    end.sendall(b"x" * 64)
sys.stdin.readline()
lane = ctypes.CDLL(None)
print("lane", lane.loopfast_lane(end.fileno()) if hasattr(lane, "loopfast_lane") else 0, flush=True)
how = sys.argv[1]
digest = ["sh", "-c", "sleep 1; exec md5sum"]
if how == "exec":
    os.dup2(end.fileno(), 0)
    os.execvp(digest[0], digest)
if how == "spawn":
    os.waitpid(os.posix_spawnp(digest[0], digest, os.environ,
                               file_actions=[(os.POSIX_SPAWN_DUP2, end.fileno(), 0)]), 0)
if how == "pass":
    here, there = socket.socketpair()
    child = os.fork()
    if child == 0:
        _, (fd,), _, _ = socket.recv_fds(there, 1, 1)
        os.dup2(fd, 0)
        os.execvp(digest[0], digest)
    socket.send_fds(here, [b"x"], [end.fileno()])
    end.close()
    os.waitpid(child, 0)
if how == "inherit":
    end.set_inheritable(True)
    os.system("true")
    import hashlib
    digest = hashlib.md5()
    while part := end.recv(65536):
        digest.update(part)
    print(digest.hexdigest(), flush=True)
if how.startswith("nest"):
    import hashlib, select
    digest = hashlib.md5()
    end.setblocking(False)
    inner, outer = select.epoll(), select.epoll()
    if how == "nest":
        inner.register(end, select.EPOLLIN)
    outer.register(inner, select.EPOLLIN)
    if how == "nested":
        inner.register(end, select.EPOLLIN)
    part, vain = b"x", 0
    while part:
        outer.poll()
        events = inner.poll(0)
        vain += not events
        for _ in events:
            part = end.recv(65536)
            digest.update(part)
    print(digest.hexdigest(), "in vain", vain, flush=True)
"""


class LeftBehind(Case):
    """Each way of giving a connection away."""

    def gives_away(self, how: str, size: int = SIZE, stops: bool = True) -> str:
        reader = self.start(sys.executable, "-c", READER, how, front=FAST, stdin=subprocess.PIPE)
        port = until(lambda: reader.output().partition("\n")[0] if "\n" in reader.output() else None, "the port")
        writer = self.start(sys.executable, "-c", WRITER, port, str(size), "stops" if stops else "", front=FAST)
        until(lambda: "written" in writer.output(), "all is written")
        if stops:
            until(lambda: os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT), "the writer stands still")
        os.write(reader.process.stdin.fileno(), b"go\n")
        until(lambda: "lane" in reader.output(), "the reader goes on")
        self.assertIn("lane 1", reader.output())
        time.sleep(0.5)
        os.kill(writer.pid, signal.SIGKILL)
        output = reader.succeed(30)
        written = hashlib.shake_256(b"left behind").digest(size)
        self.assertIn(hashlib.md5(written).hexdigest(), output, how)
        return output

    def test_executed(self) -> None:
        self.gives_away("exec")

    def test_spawned(self) -> None:
        self.gives_away("spawn")

    def test_passed_on(self) -> None:
        self.gives_away("pass")

    def test_inherited(self) -> None:
        self.gives_away("inherit")

    @unittest.skipUnless(os.geteuid() == 0, "sets the size of the kernel's buffers, in a network namespace of its own")
    def test_more_than_fits(self) -> None:
        before = BUFFERS.read_text()
        BUFFERS.write_text("4096 16384 65536")
        self.addCleanup(BUFFERS.write_text, before)
        for how in ("exec", "spawn", "pass"):
            with self.subTest(how):
                self.gives_away(how, MUCH, stops=False)

    def test_set_in_a_set(self) -> None:
        for how in ("nest", "nested"):
            with self.subTest(how):
                self.assertIn("in vain 0", self.gives_away(how))


if __name__ == "__main__":
    main()
