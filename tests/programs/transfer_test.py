#!/usr/bin/env python3
"""Files moved by daemons that fork for each connection: rsync's own, git's, and OpenSSH's (scp, sftp, a forwarded
port) with loopfast on both ends, on either, on neither. sshd and git daemon execute another program with the connection."""

import hashlib
import os
import pwd
import random
import shutil
import threading
from pathlib import Path

from harness.case import connect, free_port, main
from harness.compared import Compared, Lane, scaled
from harness.process import Program
from harness.wait import until

SIZE = scaled(6_000_000, 200_000_000)


def tree(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(60):
        path = folder / f"d{number % 7}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.choice((0, 1, 900, 30_000, SIZE // 40))))


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and ".git" not in path.parts:
            total.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


class Rsync(Compared):
    def test_both_directions(self) -> None:
        """Push, change, push what changed, pull; with and without compression."""

        def scenario(lane: Lane) -> object:
            port, stored = free_port(), self.folder / f"stored-{lane.name}"
            source, back = self.folder / f"source-{lane.name}", self.folder / f"back-{lane.name}"
            for folder in (stored, source, back):
                shutil.rmtree(folder, ignore_errors=True)
            stored.mkdir()
            (self.folder / "rsyncd.conf").write_text(f"""
use chroot = no
port = {port}
address = 127.0.0.1
{"uid = root" if os.getuid() == 0 else ""}
{"gid = root" if os.getuid() == 0 else ""}
[files]
    path = {stored}
    read only = no
""")
            server = self.serve(port, "rsync", "--daemon", "--no-detach", f"--config={self.folder}/rsyncd.conf",
                                front=lane.server)
            before, results = self.holds(server), []
            tree(source, 1)
            url = f"rsync://127.0.0.1:{port}/files/"
            for options in ([], ["-z"]):
                self.start("rsync", "-a", "--checksum", *options, f"{source}/", url, front=lane.client).succeed(90)
                self.assertEqual(digest(stored), digest(source))
                with (source / "d1" / "f1").open("ab") as file:
                    file.write(b"changed" * 10_000)
                (source / "d2" / "new").write_bytes(random.Random(2).randbytes(SIZE))
                (source / "d3" / "f3").unlink(missing_ok=True)
                self.start("rsync", "-a", "--delete", "--checksum", *options, f"{source}/", url, front=lane.client).succeed(90)
                self.assertEqual(digest(stored), digest(source))
                self.start("rsync", "-a", *options, url, f"{back}/", front=lane.client).succeed(90)
                self.assertEqual(digest(back), digest(source))
                results.append(digest(back))
            self.holds_again(server, before)
            return results

        # Both ends fork and use the connection in both processes: past the first 2 KiB it is not fused any more.
        self.compare(scenario, fused=0)
        # From the first byte on it is, and goes on in both.
        self.compare(scenario, fused=4, options=["--threshold", "0"], lanes=("both",))


class Git(Compared):
    def test_clone_fetch_push(self) -> None:
        environment = {"GIT_AUTHOR_DATE": "2020-01-01 00:00:00 +0000", "GIT_COMMITTER_DATE": "2020-01-01 00:00:00 +0000",
                       "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
                       "HOME": str(self.folder), "GIT_CONFIG_NOSYSTEM": "1"}

        def git(lane: Lane | None, *words: object, cwd: Path) -> str:
            front = lane.client if lane else ()
            return self.start("git", "-c", "safe.directory=*", *words, front=front, cwd=cwd, env=environment).succeed(90)

        origin = self.folder / "origin"
        origin.mkdir()
        git(None, "init", "-q", "-b", "trunk", ".", cwd=origin)
        for number in range(3):
            tree(origin / f"part{number}", number)
            git(None, "add", "-A", cwd=origin)
            git(None, "commit", "-qm", f"number {number}", cwd=origin)
        (self.folder / ".gitconfig").write_text("[safe]\n    directory = *\n")

        def scenario(lane: Lane) -> object:
            base = self.folder / f"served-{lane.name}"
            shutil.rmtree(base, ignore_errors=True)
            base.mkdir()
            git(None, "clone", "-q", "--bare", str(origin), "repository", cwd=base)
            port = free_port()
            server = self.serve(port, "git", "daemon", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}", "--export-all",
                                "--enable=receive-pack", f"--base-path={base}", base, front=lane.server, env=environment)
            before = self.holds(server)
            url = f"git://127.0.0.1:{port}/repository"
            git(lane, "clone", "-q", url, "clone", cwd=base)
            clone = base / "clone"
            self.assertEqual(digest(clone), digest(origin))
            (clone / "more").write_bytes(random.Random(9).randbytes(SIZE))
            git(lane, "add", "-A", cwd=clone)
            git(lane, "commit", "-qm", "more", cwd=clone)
            git(lane, "push", "-q", "origin", "trunk", cwd=clone)
            git(lane, "clone", "-q", url, "another", cwd=base)
            self.assertEqual(digest(base / "another"), digest(clone))
            git(lane, "fsck", "--full", cwd=base / "another")
            refs = git(lane, "ls-remote", url, cwd=base)
            self.holds_again(server, before)
            return refs, digest(clone)

        # The daemon executes `git upload-pack` with the connection as its standard input and output, and so early that
        # there is nothing fused yet; ssh_test.py and the differential cases have programs executed with a fused one.
        self.compare(scenario, fused=0)


class Ssh(Compared):
    def setUp(self) -> None:
        super().setUp()
        if os.getuid() != 0:
            self.skipTest("sshd is started as root")
        self.folder.chmod(0o755)
        self.user = pwd.getpwuid(os.getuid()).pw_name
        for name in ("host", "user"):
            self.start("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name, front=()).succeed()
        (self.folder / "authorized").write_text((self.folder / "user.pub").read_text())
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.options = ["-F", "none", "-i", self.folder / "user", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes",
                        "-o", f"UserKnownHostsFile={self.folder}/known", "-o", "LogLevel=ERROR"]

    def server(self, lane: Lane) -> tuple[Program, int]:
        port = free_port()
        (self.folder / "config").write_text(f"""
ListenAddress 127.0.0.1:{port}
HostKey {self.folder}/host
AuthorizedKeysFile {self.folder}/authorized
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
Subsystem sftp internal-sftp
""")
        return self.serve(port, shutil.which("sshd"), "-D", "-e", "-f", self.folder / "config", front=lane.server), port

    def test_copies_and_a_forwarded_port(self) -> None:
        data = random.Random(3).randbytes(SIZE)
        (self.folder / "sent").write_bytes(data)

        def scenario(lane: Lane) -> object:
            server, port = self.server(lane)
            before, results = self.holds(server), []
            there = f"{self.user}@127.0.0.1"
            for protocol in ((), ("-O",)):
                target = self.folder / f"copied{len(results)}-{lane.name}"
                for source, to in (("sent", f"{there}:{target}"), (f"{there}:{target}", "back")):
                    self.start("scp", "-q", *protocol, *self.options, "-P", str(port), source, to, front=lane.client,
                               cwd=self.folder).succeed(90)
                results.append([(path.read_bytes() == data) for path in (target, self.folder / "back")])
            status = self.start("ssh", *self.options, "-p", str(port), there, "seq 200000 | sha256sum; exit 7",
                                front=lane.client)
            results.append((status.wait(30), status.output()))
            results.append(self.forward(lane, port, there, data))
            until(lambda: len(observe_sessions(server.pid)) == 0, "the sessions have ended")
            self.holds_again(server, before)
            return results

        # sshd forks and executes itself with each connection; with its end on the kernel lane it works all the same.
        self.compare(scenario, fused=0, inside=True)

    def forward(self, lane: Lane, port: int, there: str, data: bytes) -> bool:
        backend, forwarded = free_port(), free_port()
        self.serve(backend, "socat", f"TCP-LISTEN:{backend},bind=127.0.0.1,reuseaddr,fork", "EXEC:cat", front=lane.server)
        tunnel = self.serve(forwarded, "ssh", *self.options, "-p", str(port), "-N", "-L",
                            f"127.0.0.1:{forwarded}:127.0.0.1:{backend}", there, front=lane.client)
        with connect(forwarded, bool(lane.client)) as client:
            sender = threading.Thread(target=client.sendall, args=(data,))
            sender.start()
            received = bytearray()
            while len(received) < len(data):
                part = client.recv(1 << 18)
                self.assertTrue(part)
                received += part
            sender.join()
        tunnel.kill()
        return received == data


def observe_sessions(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


if __name__ == "__main__":
    main(needs=["rsync", "git", "sshd", "ssh", "scp", "ssh-keygen", "socat"])
