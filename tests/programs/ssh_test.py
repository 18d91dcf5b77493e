#!/usr/bin/env python3
"""OpenSSH on loopback: sshd forks and executes itself with the connection, drops privileges and locks itself
up with seccomp; ssh, scp and a forwarded port must work as without loopfast."""

import hashlib
import os
import pwd
import shutil
import sys
import threading
from pathlib import Path

from harness.case import FAST, Case, connect, free_port, listening, main, skip
from harness.process import fast

SIZE = 20_000_000


class Ssh(Case):
    def setUp(self) -> None:
        super().setUp()
        self.folder.chmod(0o755)
        self.user = pwd.getpwuid(os.getuid()).pw_name
        for name in ("host", "user"):
            self.start("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name, front=()).succeed()
        (self.folder / "authorized").write_text((self.folder / "user.pub").read_text())
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.port = free_port()
        (self.folder / "config").write_text(f"""
ListenAddress 127.0.0.1:{self.port}
HostKey {self.folder}/host
AuthorizedKeysFile {self.folder}/authorized
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
Subsystem sftp internal-sftp
""")
        self.serve(self.port, shutil.which("sshd"), "-D", "-e", "-f", self.folder / "config", front=self.front)
        self.options = ["-F", "none", "-i", self.folder / "user", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes",
                        "-o", f"UserKnownHostsFile={self.folder}/known", "-o", "LogLevel=ERROR"]
        self.data = os.urandom(SIZE)
        (self.folder / "sent").write_bytes(self.data)

    front: tuple[str, ...] = FAST
    fronts: tuple[tuple[str, ...], ...] = (FAST, ())
    protocols: tuple[tuple[str, ...], ...] = ((), ("-O",))  # sftp, and the old rcp over ssh

    def ssh(self, command: str, *more: object, front: tuple[str, ...] = FAST, **options: object):
        return self.start("ssh", *self.options, "-p", str(self.port), *more, f"{self.user}@127.0.0.1", command,
                          front=front, **options)

    def test_session(self) -> None:
        for front in self.fronts:
            self.assertEqual(self.ssh("echo hello; exit 7", front=front).wait(), 7)
            self.assertEqual(self.ssh("seq 300000 | sha256sum", front=front).succeed().split()[0],
                             hashlib.sha256("".join(f"{i}\n" for i in range(1, 300001)).encode()).hexdigest())
            with (self.folder / "sent").open("rb") as file:
                through = self.ssh("sha256sum", front=front, stdin=file.fileno()).succeed()
            self.assertEqual(through.split()[0], hashlib.sha256(self.data).hexdigest())

    def test_copies(self) -> None:
        for front in self.fronts:
            for protocol in self.protocols:
                target = self.folder / "copied"
                for source, to in (("sent", f"{self.user}@127.0.0.1:{target}"),
                                   (f"{self.user}@127.0.0.1:{target}", "back")):
                    self.start("scp", "-q", *protocol, *self.options, "-P", str(self.port), source, to, front=front,
                               cwd=self.folder).succeed()
                self.assertTrue(target.read_bytes() == self.data)
                self.assertTrue((self.folder / "back").read_bytes() == self.data)
                target.unlink()
                (self.folder / "back").unlink()

    def test_forwarded_port(self) -> None:
        """A connection through ssh to an echo server, both of its halves on loopback."""
        backend, forwarded = free_port(), free_port()
        self.serve(backend, sys.executable, "-c", f"""
import socket, threading
def echo(c):
    while data := c.recv(65536): c.sendall(data)
    c.close()
s = socket.create_server(("127.0.0.1", {backend}))
while True: threading.Thread(target=echo, args=(s.accept()[0],), daemon=True).start()
""")
        tunnel = self.start("ssh", *self.options, "-p", str(self.port), "-N", "-L",
                            f"127.0.0.1:{forwarded}:127.0.0.1:{backend}", f"{self.user}@127.0.0.1")
        listening(tunnel, forwarded)
        with connect(forwarded) as client:
            sender = threading.Thread(target=client.sendall, args=(self.data,))
            sender.start()
            received = bytearray()
            while len(received) < SIZE:
                part = client.recv(1 << 18)
                self.assertTrue(part)
                received += part
            sender.join()
        self.assertTrue(received == self.data)


class SshOnTheRing(Ssh):
    """The same with a threshold of 0: the connection is on the ring lane when sshd executes itself."""

    front = fast("--threshold", "0")
    fronts = (front,)
    protocols = ((),)


if __name__ == "__main__":
    if os.getuid() != 0:
        skip("sshd is started as root")
    main(needs=["sshd", "ssh", "scp", "ssh-keygen"])
