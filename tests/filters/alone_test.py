"""Without the guard: a privileged process asks the kernel itself, everybody sees captures and what is attached
to lo, and the configuration says what is taken for granted of the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import bpf
from common import (Case, HEADERS, HERE, LIBRARY, NOBODY, Pair, SOMETIME, WAYS_CLOSED, captured, clean, clean_environment,
                    load_rules, main, nft_counted, payload, prepare_ways, run, status, unified_groups, until, works)
from harness.observe import descriptors

MUCH = 1_000_000
#: Captures are looked for every 50 ms of activity, the rest every 200 ms or more rarely, the longer it takes. How
#: many of those a loaded machine needs is not what is tested: who does not look at all takes for ever.
QUICK = 5.0
FULL = 10.0
RULES = "table inet t { chain c { type filter hook input priority 0; counter; }; }"


#: Runs a program for which there is no NETLINK_NETFILTER, as in a kernel without nftables.
NO_NETFILTER_SOCKETS = """
import ctypes, os, platform, struct, sys
load, equal, answer = 0x20, 0x15, 0x06
code = [(load, 0, 0, 0), (equal, 0, 3, {"x86_64": 41, "aarch64": 198}[platform.machine()]), (load, 0, 0, 32),
        (equal, 0, 1, 12), (answer, 0, 0, 0x50000 | 93), (answer, 0, 0, 0x7fff0000)]
filter = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in code))
program = ctypes.create_string_buffer(struct.pack("HL", len(code), ctypes.addressof(filter)))
if ctypes.CDLL(None).prctl(22, 2, program, 0, 0) != 0:
    sys.exit("no filter")
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Alone(Case):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(clean)

    def fused(self, pair: Pair) -> int:
        new = pair.ask("new")
        self.assertTrue(new["ring"], new)
        return new["number"]

    def leaves(self, pair: Pair, connection: int, reason: str, seconds: float) -> None:
        """Under a trickle of traffic it leaves within that time."""
        until(lambda: pair.ask("send", connection, 100)["lanes"] == [0, 0], "the connection has left", seconds, 0.01)
        self.assertIn(reason, pair.ask("look", connection)["reasons"])

    def test_privileged(self) -> None:
        pair = Pair(self)
        connection = self.fused(pair)
        load_rules(f"table inet t {{ chain c {{ type filter hook input priority 0; tcp dport {pair.port} counter; }}; }}")
        self.leaves(pair, connection, "filter", FULL)
        before = nft_counted("inet t", "c")
        pair.ask("send", connection, MUCH)
        after = nft_counted("inet t", "c")
        self.assertEqual(payload((after[0] - before[0], after[1] - before[1]), HEADERS), MUCH)
        self.assertFalse(pair.ask("new")["ring"])
        named = {one["objection"] for one in status(pair.pid) if one["reason"] == "filter"}
        self.assertEqual(len(named), 1, named)
        self.assertRegex(named.pop(), r"^nftables: table inet t, chain c, rule handle \d+ \(counter\)$")
        run("nft", "flush", "ruleset")
        until(lambda: pair.ask("new")["ring"], "a new connection is fused", SOMETIME)

    def test_privileged_before_the_first(self) -> None:
        """A rule that stands keeps a process's very first connection on the kernel."""
        load_rules(RULES)
        self.assertIn("filter", Pair(self).ask("new")["reasons"])
        run("nft", "flush", "ruleset")
        if works("iptables-legacy", "-A", "INPUT", "-i", "lo"):
            self.assertIn("filter", Pair(self).ask("new")["reasons"])
            run("iptables-legacy", "-F")
        run("ip", "xfrm", "policy", "add", "src", "::1", "dst", "::1", "dir", "out", "tmpl", "proto", "esp", "mode",
            "transport", "level", "use")
        self.assertIn("filter", Pair(self).ask("new")["reasons"])

    def test_without_nftables(self) -> None:
        """A kernel that does not have it may have the legacy tables all the same."""
        if not works("iptables-legacy", "-A", "INPUT", "-i", "lo"):
            self.skipTest("iptables-legacy does not work here")
        answer = Pair(self, front=(sys.executable, "-c", NO_NETFILTER_SOCKETS)).ask("new")
        self.assertIn("filter", answer["reasons"], answer)
        run("iptables-legacy", "-F")

    def test_socket_of_another_group(self) -> None:
        """The programs in effect are those of the group in which a socket was made, wherever the process is now."""
        try:
            counter = bpf.Counter(bpf.TYPE_CGROUP_SKB)
        except OSError as problem:
            self.skipTest(f"this kernel takes no program: {problem}")
        self.addCleanup(counter.close)
        groups = [unified_groups() / f"loopfast-{name}-{os.getpid()}" for name in ("before", "now")]
        for group in groups:
            group.mkdir()
            self.addCleanup(group.rmdir)
        pair = Pair(self, group=str(groups[0]))
        pair.ask("group", groups[1])
        connection = self.fused(pair)  # its listener's socket is from the first one
        counter.attach_cgroup(str(groups[0]), bpf.CGROUP_INGRESS)
        self.leaves(pair, connection, "filter", FULL)
        self.assertIn("filter", pair.ask("new")["reasons"])
        # One that was made where nothing is, by a process that is where nothing is.
        counter.detach_cgroup(str(groups[0]), bpf.CGROUP_INGRESS)
        until(lambda: pair.ask("new")["ring"], "a new connection is fused", 2)
        pair.close()

    def test_packets_that_go_another_way(self) -> None:
        """Both ends are on this host, but what they send leaves it, and comes back from a router that counts it."""
        router = subprocess.Popen(["unshare", "-n", "sleep", "60"])
        self.addCleanup(lambda: router.kill() or router.wait())
        until(lambda: os.readlink(f"/proc/{router.pid}/ns/net") != os.readlink("/proc/self/ns/net"), "the router is there", 5)
        for number in (0, 1):
            if not works("ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "w0" if number == 0 else "w1",
                         "netns", str(router.pid)):
                self.skipTest("this kernel has no veth")
            self.addCleanup(works, "ip", "link", "del", f"v{number}")
            run("ip", "address", "add", f"10.0.{number}.1/24", "dev", f"v{number}")
            run("ip", "link", "set", f"v{number}", "up")
            Path(f"/proc/sys/net/ipv4/conf/v{number}/accept_local").write_text("1")
            run("nsenter", "-t", str(router.pid), "-n", "sh", "-c",
                f"ip address add 10.0.{number}.2/24 dev w{number}; ip link set w{number} up; echo 1 > /proc/sys/net/ipv4/ip_forward")
        usual = Pair(self, addresses=("10.0.1.1", "10.0.0.1"))
        self.fused(usual)
        rules = [("pref", "10", "iif", "v0", "lookup", "local"), ("pref", "11", "iif", "v1", "lookup", "local"),
                 ("pref", "20", "from", "10.0.0.1", "to", "10.0.1.1", "lookup", "50"),
                 ("pref", "21", "from", "10.0.1.1", "to", "10.0.0.1", "lookup", "51"), ("pref", "100", "lookup", "local")]
        run("ip", "route", "add", "10.0.1.1", "via", "10.0.0.2", "dev", "v0", "table", "50")
        run("ip", "route", "add", "10.0.0.1", "via", "10.0.1.2", "dev", "v1", "table", "51")
        for rule in rules:
            run("ip", "rule", "add", *rule)
            self.addCleanup(run, "ip", "rule", "del", *rule)
        run("ip", "rule", "del", "pref", "0")
        self.addCleanup(run, "ip", "rule", "add", "pref", "0", "lookup", "local")
        for user in (None, NOBODY):
            pair = Pair(self, user=user, addresses=("10.0.1.1", "10.0.0.1"))
            answer = pair.ask("new")
            self.assertEqual((answer["ring"], answer["reasons"][0]), (False, "not-local"), answer)
            pair.ask("send", answer["number"], 100_000)
        table = run("nsenter", "-t", str(router.pid), "-n", "ip", "-s", "-j", "link", "show", "w0")
        self.assertGreater(json.loads(table)[0]["stats64"]["rx"]["bytes"], 200_000)

    def test_ways_that_close(self) -> None:
        """What takes the kernel's packets their way takes the ring's bytes theirs; when it goes they arrive. Everybody
        sees it, and a process that has seen it before."""
        prepare_ways(self)
        pairs: dict[str, Pair] = {}
        for what, address, close, reopen in WAYS_CLOSED:
            with self.subTest(what=what):
                pair = pairs.setdefault(address, Pair(self, user=NOBODY, addresses=(address,)))
                connection = self.fused(pair)
                other = self.fused(pair)
                pair.ask("send", connection, 100)
                run(*close)
                try:
                    self.leaves_for_nowhere(pair, connection)
                    self.assertEqual(pair.ask("pull", connection, 1 << 30, 0.3)["got"], 0)
                finally:
                    run(*reopen)
                self.assertGreater(pair.ask("pull", connection, 1, 20)["got"], 0)
                self.assertIn("not-local", pair.ask("look", connection)["reasons"])
                # What has traffic only when all is well again stays.
                self.assertTrue(pair.ask("send", other, 10_000)["ring"])

    def leaves_for_nowhere(self, pair: Pair, connection: int) -> None:
        """What it sends until it has left is received; what comes after that is not."""
        def left() -> bool:
            pair.ask("push", connection, 10)
            pair.ask("pull", connection, 1 << 30, 0.02)
            return pair.ask("look", connection)["lanes"][0] == 0

        until(left, "the connection has left", FULL, 0.01)
        pair.ask("push", connection, 1000)

    def test_options_that_close_the_way(self) -> None:
        """Options of a socket after which the kernel drops what it sends or gets, at each moment of a connection."""
        pair = Pair(self)
        for option in ("signature", "policy", "device", "map"):
            for fused in (True, False):
                with self.subTest(option=option, fused=fused):
                    if option == "device" and not fused:
                        continue  # the kernel's own judgement, before anything is fused
                    number = pair.ask("new")["number"] if fused else pair.ask("young")["number"]
                    try:
                        pair.ask("option", number, option)
                    except AssertionError as problem:
                        self.skipTest(f"this kernel has no such option: {problem}")
                    try:
                        pair.ask("push", number, 50_000)
                    except AssertionError as problem:
                        self.assertEqual((option, "Permission" in str(problem)), ("map", True), problem)
                    self.assertEqual(pair.ask("pull", number, 50_000, 0.5)["got"], 0)

    def crossed(self, rules: str, first: tuple[int, int], second: tuple[int, int]) -> list[str]:
        load_rules(rules)
        for user in (None, NOBODY):
            def become(user=user) -> None:
                if user is not None:
                    os.setresuid(user, user, user)

            done = subprocess.run([sys.executable, str(HERE / "crossed.py"), *map(str, first + second)], text=True,
                                  capture_output=True, timeout=60, check=False, preexec_fn=become,
                                  env={**clean_environment(), "LD_PRELOAD": str(LIBRARY), "LOOPFAST": "off"})
            self.assertEqual(done.returncode, 0, done.stderr)
            answer = json.loads(done.stdout)
            if not answer["mirrored"]:
                self.skipTest("this kernel translates otherwise")
            self.assertEqual(answer["wrong"], [])
            # The next ones dial from the same ports.
            first, second = (first[0], first[1] + 20), (second[0], second[1] + 20)
        return answer["reasons"]

    def test_translated_destination(self) -> None:
        """Two connections from one port; what the one dials is led to what the other dials."""
        reasons = self.crossed("table ip n { chain o { type nat hook output priority -100; tcp dport 7080 redirect to :8080; }; }",
                               (7080, 5000), (8080, 5000))
        self.assertEqual(reasons[2], "filter")

    def test_translated_source(self) -> None:
        """Nothing tells where these come from; but what each has sent and received is not the same."""
        self.crossed("table ip n { chain p { type nat hook postrouting priority 100; "
                     "tcp sport 5000 snat to 127.0.0.1:6000; tcp sport 5020 snat to 127.0.0.1:6020; }; }",
                     (8080, 5000), (8080, 6000))

    def test_idle_then_a_rule(self) -> None:
        """After a pause the first bytes wait for the look, so they are seen."""
        pair = Pair(self)
        connection = self.fused(pair)
        time.sleep(0.5)
        load_rules(f"table inet t {{ chain c {{ type filter hook input priority 0; tcp dport {pair.port} counter; }}; }}")
        pair.ask("send", connection, 10_000)
        self.assertEqual(payload(nft_counted("inet t", "c"), HEADERS), 10_000)

    def test_unprivileged_sees_captures(self) -> None:
        pair = Pair(self, user=NOBODY)
        connection = self.fused(pair)
        file = self.folder / "capture.pcap"
        dump = subprocess.Popen(["tcpdump", "-i", "lo", "-U", "--immediate-mode", "-B", "65536", "-w", str(file), "tcp", "dst", "port",
                                 str(pair.port)], stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: dump.poll() is not None or dump.kill() or dump.wait())
        while "listening" not in (line := dump.stderr.readline()):
            self.assertNotEqual(line, "")
        self.leaves(pair, connection, "capture", QUICK)
        self.assertIn("capture", pair.ask("new")["reasons"])
        # tcpdump writes a little later, but in order: what another connection sends now comes after all that was.
        marker = pair.ask("new")
        until(lambda: captured(file, pair.port, marker["from"]) >= marker["sent"], "all bytes until now are captured", SOMETIME)
        before = captured(file, pair.port)
        pair.ask("send", connection, MUCH)
        until(lambda: captured(file, pair.port) - before >= MUCH, "all bytes are captured", SOMETIME)
        self.assertEqual(captured(file, pair.port) - before, MUCH)
        dump.send_signal(signal.SIGINT)
        dump.wait(10)
        dump.stderr.close()
        until(lambda: pair.ask("new")["ring"], "a new connection is fused", SOMETIME)

    def test_unprivileged_sees_what_is_attached_to_lo(self) -> None:
        if not works("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "8gbit", "burst", "2m", "latency", "50ms"):
            self.skipTest("this kernel has no tbf")
        pair = Pair(self, user=NOBODY)
        self.assertIn("filter", pair.ask("new")["reasons"])
        run("tc", "qdisc", "del", "dev", "lo", "root")
        until(lambda: pair.ask("new")["ring"], "a new connection is fused", SOMETIME)

    def test_unprivileged_assumes(self) -> None:
        """Rules cannot be seen: the kernel has judged the connection, and the default is to fuse it."""
        load_rules(RULES)
        self.assertTrue(Pair(self, user=NOBODY).ask("new")["ring"])
        strict = Pair(self, user=NOBODY, LOOPFAST_ASSUME="strict").ask("new")
        self.assertFalse(strict["ring"])
        self.assertIn("policy", strict["reasons"])
        run("nft", "flush", "ruleset")
        # It cannot know that they are gone either. One who may look can.
        self.assertFalse(Pair(self, user=NOBODY, LOOPFAST_ASSUME="strict").ask("new")["ring"])
        self.assertTrue(Pair(self, LOOPFAST_ASSUME="strict").ask("new")["ring"])

    def test_socket_filters(self) -> None:
        pair = Pair(self)  # some kernels take no program from others
        connection = self.fused(pair)
        pair.ask("filter", connection)
        answer = pair.ask("send", connection, 100_000)
        self.assertEqual(answer["lanes"], [0, 0])
        self.assertEqual(answer["reasons"][1], "filter")
        pair.ask("listener")
        self.assertIn("filter", pair.ask("new")["reasons"])

    def test_idle_costs_nothing(self) -> None:
        """A process with fused connections that does nothing looks at nothing."""
        pair = Pair(self)
        for _ in range(5):
            self.fused(pair)

        def idle() -> bool:
            before = switches(pair.pid)
            time.sleep(1)
            return switches(pair.pid) == before

        # It may have to come to rest first.
        self.assertTrue(idle() or idle() or idle(), "it has woken in each of three seconds")

    def test_looks_leave_nothing(self) -> None:
        """Each look opens what it asks, and closes it."""
        pair = Pair(self)
        connection = self.fused(pair)
        before = os.listdir(f"/proc/{pair.pid}/fd")
        for _ in range(20):
            pair.ask("send", connection, 100)
            time.sleep(0.1)
        self.assertEqual(len(os.listdir(f"/proc/{pair.pid}/fd")), len(before), descriptors(pair.pid))

    def test_rules_of_our_own(self) -> None:
        """By user, program, port and address; also for sockets that opted in by themselves."""
        hexadecimal = "4/7f000001/32"
        for rules, fused in (("*:*:off:-:-", False), (f"*:*:off:-:-:{NOBODY}", False), ("*:*:off:-:-:0", True),
                             (f"*:*:off:-:-:*:{hexadecimal}", False), ("*:*:off:-:-:*:4/7f000002/32", True),
                             ("*:*:off:-:-:*:4/7f000000/8", False), ("*:1:off:-:-", True), ("other:*:off:-:-", True)):
            with self.subTest(rules=rules):
                new = Pair(self, user=NOBODY, LOOPFAST_RULES=rules).ask("new")
                self.assertEqual(new["ring"], fused, new)
                if not fused:
                    self.assertIn("policy", new["reasons"])

    def test_relatives(self) -> None:
        """A child that moves to another network namespace is judged by what is there."""
        load_rules(RULES)
        answer = Pair(self, front=("unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")).ask("new")
        self.assertTrue(answer["ring"], answer)


def switches(pid: int) -> int:
    """How often the threads of a process gave up a processor."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        for line in Path(f"/proc/{pid}/task/{task}/status").read_text().splitlines():
            if line.startswith(("voluntary_ctxt", "nonvoluntary_ctxt")):
                total += int(line.split()[1])
    return total


if __name__ == "__main__":
    main(needs=["nft", "tc", "tcpdump"])
