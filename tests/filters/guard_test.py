"""The guard itself: who believes whom, its deaths, and that nobody stops or crashes for them."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

from common import (COMMAND, Case, Guard, HEADERS, NOBODY, Pair, SOMETIME, clean, clean_environment, doctor,
                    load_rules, main, nft_counted, payload, run, status, until)

DIRECTORY = Path("/run/loopfast")
RULES = "table inet t { chain c { type filter hook input priority 0; counter; }; }"
#: As src/policy/guard_page.h has it: a page that says that something forbids the fast path.
MAGIC, VERSION = 0x6472617567667066, 1


def cookie() -> int:
    with socket.socket() as probe:
        return struct.unpack("Q", probe.getsockopt(socket.SOL_SOCKET, 71, 8))[0]


def forged_page(genuine: bytes, objects: bool) -> bytes:
    """A copy of the guard's own page, owned by somebody else, with or without an objection."""
    page = bytearray(genuine)
    struct.pack_into("<II", page, 0, os.getpid(), 2)
    struct.pack_into("<I", page, 44, 1 if objects else 0)
    return bytes(page)


STRANGER = """
import array, os, socket, sys
page = sys.stdin.buffer.read()
fd = os.memfd_create("forged")
os.write(fd, page)
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind("\\0loopfast/guard/1")
listener.listen(8)
print("ready", flush=True)
while True:
    link, _ = listener.accept()
    try:
        link.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    except OSError:
        pass
    link.close()
"""


class TheGuard(Case):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(clean)

    def stranger(self, page: bytes) -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, "-c", STRANGER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   env=clean_environment(), user=NOBODY, group=NOBODY, extra_groups=[])

        def end() -> None:
            process.kill()
            process.wait(10)
            process.stdout.close()

        self.addCleanup(end)
        process.stdin.write(page)
        process.stdin.close()
        self.assertEqual(process.stdout.readline(), b"ready\n")
        return process

    def genuine_page(self) -> bytes:
        guard = Guard(self)
        page = (DIRECTORY / f"guard-{cookie():x}").read_bytes()
        guard.close()
        self.assertEqual(struct.unpack_from("<QII", page, 8)[:2], (MAGIC, VERSION))
        self.assertFalse((DIRECTORY / f"guard-{cookie():x}").exists(), "it takes its page with it")
        return page

    def test_believed_by_strangers_of_none(self) -> None:
        """A page of somebody who is not root says nothing to anybody: neither by name nor by file."""
        genuine = self.genuine_page()
        forged = forged_page(genuine, True)
        stranger = self.stranger(forged)
        for user in (None, 1001):
            self.assertTrue(Pair(self, user=user).ask("new")["ring"])
        file = DIRECTORY / f"guard-{cookie():x}"
        self.addCleanup(lambda: file.unlink(missing_ok=True))
        file.write_bytes(forged)
        # As root's own it would be believed: so the forgery is a good one.
        os.chmod(file, 0o644)
        self.assertFalse(Pair(self, user=1001).ask("new")["ring"])
        for owner, mode in ((NOBODY, 0o644), (0, 0o664), (0, 0o646)):
            os.chown(file, owner, owner)
            os.chmod(file, mode)
            with self.subTest(owner=owner, mode=oct(mode)):
                self.assertTrue(Pair(self, user=1001).ask("new")["ring"])
        os.chmod(DIRECTORY, 0o777)
        self.addCleanup(lambda: os.chmod(DIRECTORY, 0o755))
        os.chown(file, 0, 0)
        os.chmod(file, 0o644)
        self.assertTrue(Pair(self, user=1001).ask("new")["ring"], "a directory that others may write to")
        os.chmod(DIRECTORY, 0o755)
        # And of another namespace.
        other = bytearray(forged)
        struct.pack_into("<Q", other, 24, cookie() + 1)
        file.write_bytes(bytes(other))
        self.assertTrue(Pair(self, user=1001).ask("new")["ring"])
        file.unlink()
        # A stranger that has the name does not keep the guard from its work.
        guard = Guard(self)
        until(lambda: any("is taken by a process of user 65534" in line for line in guard.said()), "a warning", SOMETIME)
        pair = Pair(self, user=1001)
        connection = pair.ask("new")["number"]
        load_rules(RULES)
        guard.wait_for("nftables: ")
        self.assertEqual(pair.ask("send", connection, 1000)["lanes"], [0, 0])
        self.assertIsNone(stranger.poll())

    def test_says_nothing_false_through_a_stranger(self) -> None:
        """A stranger's "nothing forbids it" does not hide a rule from one who may look himself."""
        forged = forged_page(self.genuine_page(), False)
        self.stranger(forged)
        load_rules(RULES)
        self.assertFalse(Pair(self).ask("new")["ring"])

    @staticmethod
    def burden(deaf: tuple[str, int]) -> None:
        kept = []
        for _ in range(40):
            link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            link.setblocking(False)
            try:
                link.connect("\0loopfast/guard/1")
            except BlockingIOError:
                continue
            lingering = socket.create_connection(deaf)
            kept += [link, lingering]
            lingering.setblocking(False)
            try:
                while lingering.send(bytes(65536)):
                    pass
            except BlockingIOError:
                pass
            lingering.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
            for message in (b"", b"x"):
                try:
                    socket.send_fds(link, [message], [lingering.fileno()])
                except OSError:  # the kernel refuses it since Linux 6.16; or it was answered already
                    pass
        os._exit(0)  # before anything is closed

    def test_burdened_by_a_stranger(self) -> None:
        """Who asks and queues a descriptor that takes for ever to let go of keeps the guard from nothing."""
        guard = Guard(self)
        deaf = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(deaf.close)
        # Its end, unlike a close, waits for nothing: what is under way then is nobody's but the guard's.
        guard.process.send_signal(signal.SIGSTOP)  # so that all is there when it is about to answer
        stranger = os.fork()
        if stranger == 0:
            self.burden(deaf.getsockname())
        self.assertEqual(os.waitpid(stranger, 0)[1], 0)
        guard.process.send_signal(signal.SIGCONT)
        before = len(guard.said())
        load_rules(RULES)
        guard.wait_for("nftables", before)
        run("nft", "flush", "ruleset")

    def test_without_its_directory(self) -> None:
        """In a container that shares the network namespace and not /run the page comes through the name."""
        guard = Guard(self)
        elsewhere = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh")
        pair = Pair(self, front=(*elsewhere, "setpriv", "--reuid", "1001", "--clear-groups"))
        connection = pair.ask("new")
        self.assertTrue(connection["ring"])
        load_rules(RULES)
        guard.wait_for("nftables: ")
        self.assertEqual(pair.ask("send", connection["number"], 1000)["lanes"], [0, 0])
        self.assertFalse(pair.ask("new")["ring"])
        # What was handed out can be read and no more.
        reader = subprocess.run([sys.executable, "-c", (
            "import array,os,socket,sys\n"
            "s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET);s.connect('\\0loopfast/guard/1')\n"
            "m=s.recvmsg(1,socket.CMSG_SPACE(4));fd=array.array('i',m[1][0][2])[0]\n"
            "def fails(call):\n"
            "    try: call()\n"
            "    except OSError: return True\n"
            "print(fails(lambda:os.write(fd,b'x')),fails(lambda:os.ftruncate(fd,0)),"
            "fails(lambda:os.open(f'/proc/self/fd/{fd}',os.O_RDWR)),fails(lambda:os.fchmod(fd,0o666)))\n")],
            env=clean_environment(), user=1001, group=1001, extra_groups=[], text=True, capture_output=True, timeout=20,
            check=False)
        self.assertEqual(reader.stdout.split(), ["True"] * 4, reader.stderr)

    def test_its_directory_is_full(self) -> None:
        """Then it takes room elsewhere, and is found by its name: it does not die of it, nor does a reader."""
        crowded = ("unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=16k none /run && "
                   '{ head -c 64k /dev/zero > /run/crowd; exec "$@"; }', "sh")
        guard = Guard(self, front=crowded)
        pair = Pair(self, user=1001, LOOPFAST_ASSUME="strict")
        connection = pair.ask("new")
        self.assertTrue(connection["ring"], "who asks hears of the guard")
        load_rules(RULES)
        guard.wait_for("nftables: ")
        self.assertEqual(pair.ask("send", connection["number"], 1000)["lanes"], [0, 0])
        self.assertIsNone(guard.process.poll())

    def test_the_page_is_cut_off(self) -> None:
        """By root, who else: the guard ends, and for the others there is none."""
        guard = Guard(self)
        file = DIRECTORY / f"guard-{cookie():x}"
        pair = Pair(self)  # may look itself
        connection = pair.ask("new")
        self.assertTrue(connection["ring"])
        pair.ask("load", "on")
        os.truncate(file, 0)
        self.assertTrue(pair.ask("send", connection["number"], 10_000)["ring"])
        self.assertTrue(pair.ask("new")["ring"])
        guard.process.wait(10)
        self.assertEqual(pair.ask("load", "off")["problem"], "")
        guard = Guard(self)
        load_rules(RULES)
        guard.wait_for("nftables: ")
        until(lambda: pair.ask("send", connection["number"], 100)["lanes"] == [0, 0], "the next guard is heard", SOMETIME)

    def test_another_version(self) -> None:
        """What it says is not understood, so there is no guard; and it does not work beside another."""
        file = DIRECTORY / f"guard-{cookie():x}"
        other = bytearray(forged_page(self.genuine_page(), True))
        struct.pack_into("<I", other, 16, VERSION + 1)
        self.addCleanup(lambda: file.unlink(missing_ok=True))
        file.write_bytes(bytes(other))
        file.chmod(0o644)
        self.assertTrue(Pair(self, user=1001).ask("new")["ring"])
        self.assertIn("policy", Pair(self, user=1001, LOOPFAST_ASSUME="strict").ask("new")["reasons"])
        self.assertIn("a guard is at work", self.one_more())
        self.assertEqual(file.read_bytes(), bytes(other))
        # Dead, or no page at all: in nobody's way.
        struct.pack_into("<I", other, 0, 1 << 30)
        for left in (bytes(other), b"", b"rubbish, and more of it"):
            file.write_bytes(left)
            Guard(self).close()
            self.assertFalse(file.exists())

    def test_leaves_what_is_not_its_own(self) -> None:
        file = DIRECTORY / f"guard-{cookie():x}"
        guard = Guard(self)
        self.addCleanup(lambda: file.unlink(missing_ok=True))
        file.unlink()
        file.write_bytes(b"somebody else's")
        guard.close()
        self.assertEqual(file.read_bytes(), b"somebody else's")

    def one_more(self) -> str:
        """What a guard says that ends at once."""
        done = subprocess.run([str(COMMAND), "guard"], env=clean_environment(), text=True, capture_output=True,
                              timeout=20, check=False)
        self.assertEqual(done.returncode, 1)
        return done.stderr

    def test_two_begin_at_once(self) -> None:
        """One of them works; also if the other one has the name and does not listen yet."""
        for _ in range(5):
            guards = [Guard(self), Guard(self)]
            until(lambda: any(guard.process.poll() is not None for guard in guards), "one gives way", SOMETIME)
            self.assertEqual(sorted(guard.process.poll() is None for guard in guards), [False, True])
            self.assertTrue((DIRECTORY / f"guard-{cookie():x}").exists())
            for guard in guards:
                guard.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as beginning:
            beginning.bind("\0loopfast/guard/1")
            timer = threading.Timer(0.3, beginning.listen)
            timer.start()
            self.assertIn("a guard is at work", self.one_more())
            timer.join()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
            silent.bind("\0loopfast/guard/1")
            guard = Guard(self)
            until(lambda: any("by a process that does not listen" in line for line in guard.said()), "a warning", SOMETIME)
            self.assertTrue(Pair(self, user=1001, LOOPFAST_ASSUME="strict").ask("new")["ring"])

    def test_only_one(self) -> None:
        guard = Guard(self)
        second = subprocess.run([str(COMMAND), "guard"], env=clean_environment(), text=True, capture_output=True,
                                timeout=20, check=False)
        self.assertEqual(second.returncode, 1)
        self.assertIn(f"already, process {guard.process.pid}", second.stderr)
        third = subprocess.run([str(COMMAND), "guard"], env=clean_environment(), text=True, capture_output=True,
                               timeout=20, check=False, user=NOBODY, group=NOBODY, extra_groups=[])
        self.assertIn("must be root", third.stderr)

    def test_dies_and_comes_back(self) -> None:
        """Killed while there is traffic: nobody stops. While it is dead there is no guard; the next one is
        heard."""
        pair = Pair(self, user=NOBODY)
        pair.ask("load", "on")
        strict = Pair(self, user=NOBODY, LOOPFAST_ASSUME="strict")
        for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            guard = Guard(self)
            connection = until(lambda: (new := strict.ask("new"))["ring"] and new, "the strict one hears the guard", SOMETIME)
            other = Pair(self, user=NOBODY)
            mine = other.ask("new")["number"]
            load_rules(RULES)
            guard.wait_for("nftables: ")
            self.assertEqual(other.ask("send", mine, 10_000)["lanes"], [0, 0])
            guard.process.send_signal(how)
            guard.process.wait(10)
            # The rule stands, and nobody says so any more.
            until(lambda: other.ask("new")["ring"], "the dead guard is forgotten", SOMETIME)
            run("nft", "flush", "ruleset")
            self.assertEqual(strict.ask("send", connection["number"], 1000)["lanes"], [0, 0])
            self.assertIn("policy", strict.ask("new")["reasons"])
        guard = Guard(self)
        until(lambda: pair.ask("new")["ring"], "fused again", SOMETIME)
        mine = pair.ask("new")["number"]
        # A new guard is found by who has traffic within 200 ms.
        for _ in range(10):
            time.sleep(0.05)
            pair.ask("send", mine, 100)
        load_rules(f"table inet t {{ chain c {{ type filter hook input priority 0; tcp dport {pair.port} counter; }}; }}")
        guard.wait_for("nftables: ")
        result = pair.ask("load", "off")
        self.assertEqual(result["problem"], "")
        before = nft_counted("inet t", "c")
        pair.ask("send", mine, 100_000)
        after = nft_counted("inet t", "c")
        self.assertEqual(payload((after[0] - before[0], after[1] - before[1]), HEADERS), 100_000)

    def test_starts_later(self) -> None:
        """A rule that an unprivileged process could not see is heeded when a guard comes."""
        load_rules(RULES)
        pair = Pair(self, user=NOBODY)
        connection = pair.ask("new")
        self.assertTrue(connection["ring"])
        Guard(self)
        until(lambda: pair.ask("send", connection["number"], 100)["lanes"] == [0, 0], "it has left", SOMETIME, 0.01)
        self.assertFalse(pair.ask("new")["ring"])

    def test_stopped(self) -> None:
        """A guard that is alive but stopped is not relied on for ever."""
        guard = Guard(self)
        pair = Pair(self)  # may look itself
        connection = pair.ask("new")["number"]
        guard.process.send_signal(signal.SIGSTOP)
        load_rules(RULES)
        self.addCleanup(lambda: guard.process.send_signal(signal.SIGCONT))
        self.assertTrue(pair.ask("send", connection, 100)["ring"])
        until(lambda: pair.ask("send", connection, 100)["lanes"] == [0, 0], "it looked itself", SOMETIME, 0.02)
        guard.process.send_signal(signal.SIGCONT)
        guard.wait_for("nftables: ")
        run("nft", "flush", "ruleset")
        guard.wait_for("nothing forbids")
        until(lambda: pair.ask("new")["ring"], "fused again", SOMETIME)

    def test_costs_little(self) -> None:
        guard = Guard(self)
        time.sleep(0.2)
        fields = Path(f"/proc/{guard.process.pid}/stat").read_text().rpartition(")")[2].split()
        before = int(fields[11]) + int(fields[12])
        time.sleep(2)
        fields = Path(f"/proc/{guard.process.pid}/stat").read_text().rpartition(")")[2].split()
        used = (int(fields[11]) + int(fields[12]) - before) / os.sysconf("SC_CLK_TCK")
        print(f"{used / 2:.1%} of a processor")
        self.assertLess(used / 2, 0.05)

    def test_doctor_and_status(self) -> None:
        code, report = doctor()
        self.assertEqual((code, report["fast_path"]), (0, "possible"), report)
        guard = Guard(self)
        code, report = doctor()
        self.assertEqual(code, 0, report)
        self.assertIn("ok", [check["verdict"] for check in report["checks"] if check["name"] == "guard"])
        load_rules('table inet t { chain c { type filter hook input priority 0; tcp dport 7 counter comment "why"; }; }')
        guard.wait_for("nftables: ")
        expected = r'nftables: table inet t, chain c, rule handle \d+ \(counter, "why"\)'
        pair = Pair(self, user=NOBODY)
        pair.ask("new")
        self.assertRegex(status(pair.pid)[0]["objection"], expected)
        self.assertRegex(run(str(COMMAND), "status", "--pid", str(pair.pid)), f"filter: {expected}")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)):
            guard.wait_for(f"capture: python3[{os.getpid()}] on all devices")
            for arguments, user in (((), None), ((), NOBODY), (("--pid", str(pair.pid)), None)):
                done = subprocess.run([str(COMMAND), "doctor", *arguments], env=clean_environment(), text=True,
                                      capture_output=True, timeout=20, check=False, user=user, group=user,
                                      extra_groups=[] if user else None)
                self.assertEqual(done.returncode, 1, done.stdout)
                self.assertRegex(done.stdout, f"forbids +filters +{expected}")
                self.assertRegex(done.stdout, r"forbids +filters +capture: python3\[\d+\] on all devices")
                self.assertIn("The fast path is forbidden here.", done.stdout)
        guard.close()
        code, report = doctor()
        self.assertEqual(code, 1)
        # Without privilege and guard it says what it cannot see.
        done = subprocess.run([str(COMMAND), "doctor"], env=clean_environment(), text=True, capture_output=True,
                              timeout=20, check=False, user=NOBODY, group=NOBODY, extra_groups=[])
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("may not ask about: nftables, iptables", done.stdout)
        strict = subprocess.run([str(COMMAND), "doctor"], env=clean_environment({"LOOPFAST_ASSUME": "strict"}), text=True,
                                capture_output=True, timeout=20, check=False, user=NOBODY, group=NOBODY,
                                extra_groups=[])
        self.assertEqual(strict.returncode, 1, strict.stdout)
        # From outside, of a process that lives here.
        outside = subprocess.run(["unshare", "-n", str(COMMAND), "doctor", "--json", "--pid", str(pair.pid)], env=clean_environment(), text=True, capture_output=True, timeout=20,
                                 check=False)
        self.assertEqual(outside.returncode, 1, outside.stdout + outside.stderr)
        self.assertRegex(outside.stdout, "nftables: table inet t, chain c")


if __name__ == "__main__":
    main(needs=["nft", "unshare", "setpriv"])
