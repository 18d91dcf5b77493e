"""Without the guard: a privileged process asks the kernel itself, everybody sees captures and what is attached
to lo, and the configuration says what is taken for granted of the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from common import (Case, HEADERS, NOBODY, Pair, SOMETIME, captured, clean, load_rules, main, nft_counted, payload, run, status,
                    until, works)

MUCH = 1_000_000
#: Captures are looked for every 50 ms of activity, the rest every 200 ms or more rarely, the longer it takes. How
#: many of those a loaded machine needs is not what is tested: who does not look at all takes for ever.
QUICK = 5.0
FULL = 10.0
RULES = "table inet t { chain c { type filter hook input priority 0; counter; }; }"


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
