"""Every facility that looks at packets, with the guard at work: when it appears a fused connection goes back to
the kernel within 100 ms and loses nothing, what it then carries is seen by the facility to the last byte, and a
new connection stays on the kernel; when it goes, a new connection is fused. And what does not look at
established connections disturbs nobody."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
import unittest
from pathlib import Path

import bpf
from common import (Case, Guard, HEADERS, NOBODY, Pair, SEEN, SOMETIME, SOON, WAYS_CLOSED, captured, clean, element_counted, load_rules,
                    main, nft_counted, payload, prepare_ways, run, status, unified_groups, until, works)

MUCH = 1_000_000
ETHERNET = 14


class Facilities(Case):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(clean)
        self.guard = Guard(self)
        self.pair = Pair(self, user=NOBODY)

    def fused(self) -> int:
        # What an earlier test took away may be in the kernel for a moment longer: programs go with a grace period.
        deadline = time.monotonic() + SOMETIME
        while not (new := self.pair.ask("new"))["ring"] and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertTrue(new["ring"], new)
        return new["number"]

    def check(self, text: str, reason: str, appear, vanish, count=None) -> None:
        """`count` says how many packets and bytes the facility counted, headers included, and of what size."""
        connection = self.fused()
        self.pair.ask("send", connection, 10_000)
        said = len(self.guard.said())
        appear()
        self.guard.wait_for(text, said)
        # From here on it must see every byte. The verdict is read before each byte that is sent.
        before = count()[0] if count else (0, 0)
        answer = self.pair.ask("send", connection, MUCH)
        self.assertEqual(answer["lanes"], [0, 0], answer)
        self.assertIn(reason, answer["reasons"], answer)
        if count:
            after, header = count()
            packets, size = after[0] - before[0], after[1] - before[1]
            self.assertEqual(payload((packets, size), header), MUCH, f"{packets} packets, {size} bytes")
        new = self.pair.ask("new")
        self.assertFalse(new["ring"], new)
        self.assertIn(reason, new["reasons"])
        said = len(self.guard.said())
        vanish()
        self.guard.wait_for("nothing forbids", said)
        again = self.fused()
        # The old ones go on, on the kernel lane.
        for number in (connection, new["number"], again):
            self.pair.ask("send", number, 100_000)
        self.assertFalse(self.pair.ask("look", connection)["ring"])

    def unimpressed(self, appear, vanish) -> None:
        """What decides about new connections, or about others, leaves fused ones where they are."""
        connection = self.fused()
        appear()
        try:
            time.sleep(SEEN)
            self.assertTrue(self.pair.ask("send", connection, 10_000)["ring"], self.guard.said())
            self.fused()
        finally:
            vanish()

    # --- nftables ---

    def nft(self, rule: str, hook: str = "type filter hook input priority 0;") -> None:
        load_rules(f"table inet t {{ chain c {{ {hook} {rule}; }}; }}")

    def test_nftables_counter(self) -> None:
        self.check("nftables: table inet t, chain c", "filter",
                   lambda: self.nft(f"tcp dport {self.pair.port} counter"), lambda: run("nft", "flush", "ruleset"),
                   lambda: (nft_counted("inet t", "c"), HEADERS))

    def test_nftables_drop(self) -> None:
        """A rule that drops must drop; what it held back arrives when it goes."""
        connection = self.fused()
        said = len(self.guard.said())
        self.nft(f"tcp dport {self.pair.port} drop")
        self.guard.wait_for("(drop)", said)
        self.assertEqual(self.pair.ask("push", connection, 50_000)["taken"], 50_000)
        self.assertEqual(self.pair.ask("pull", connection, 50_000, 0.5)["got"], 0)
        run("nft", "flush", "ruleset")
        self.assertEqual(self.pair.ask("pull", connection, 50_000, 10)["got"], 50_000)
        self.assertFalse(self.pair.ask("look", connection)["ring"])

    def test_nftables_policy(self) -> None:
        self.check("policy drop", "filter",
                   lambda: self.nft("policy drop; ip daddr 127.0.0.1 accept", "type filter hook prerouting priority 5;"),
                   lambda: run("nft", "flush", "ruleset"))

    def test_nftables_unimpressed(self) -> None:
        for rules in ("ct state established,related accept; tcp dport 9 counter drop", "ct state new tcp dport 1-1024 counter drop",
                      "iif lo accept; counter drop", 'iifname "eth*" counter drop', "udp dport 53 counter",
                      "ct state vmap { established : accept, invalid : drop }; counter comment \"new ones only\"",
                      "tcp flags & (fin | syn | rst | ack) == syn counter", "ct state invalid counter drop"):
            with self.subTest(rules=rules):
                self.unimpressed(lambda rules=rules: self.nft(rules), lambda: run("nft", "flush", "ruleset"))
        with self.subTest(rules="nat"):
            self.unimpressed(lambda: self.nft("tcp dport 9 counter", "type nat hook prerouting priority -100;"),
                             lambda: run("nft", "flush", "ruleset"))

    def test_nftables_lo_device(self) -> None:
        self.check("table netdev t", "filter",
                   lambda: load_rules("table netdev t { chain c { type filter hook ingress device lo priority 0; "
                                      f"tcp dport {self.pair.port} counter; }}; }}"),
                   lambda: run("nft", "flush", "ruleset"), lambda: (nft_counted("netdev t", "c"), HEADERS))

    def test_nftables_elements(self) -> None:
        """A set or a map whose elements count, under a rule that only accepts."""
        port = self.pair.port
        for contents, use in ((f"set s {{ type inet_service; counter; elements = {{ {port} }}; }}", "tcp dport @s accept"),
                              (f"map s {{ type inet_service : verdict; counter; elements = {{ {port} : accept }}; }}",
                               "tcp dport vmap @s")):
            with self.subTest(contents=contents):
                self.check("(counter)", "filter",
                           lambda contents=contents, use=use: load_rules(
                               f"table inet t {{ {contents}; chain c {{ type filter hook input priority 0; {use}; }}; }}"),
                           lambda: run("nft", "flush", "ruleset"), lambda: (element_counted("inet t", port), HEADERS))
        for contents, what in (("type inet_service; quota 5000 bytes; elements = { 1-65535 }; flags interval;", "(quota)"),
                               ("type inet_service; flags dynamic;", "(dynamic set)")):
            said = len(self.guard.said())
            load_rules(f"table inet t {{ set s {{ {contents} }}; chain c {{ type filter hook input priority 0; "
                       "tcp dport @s accept; }; }")
            self.guard.wait_for(what, said)
            run("nft", "flush", "ruleset")

    def test_nftables_takes_options_away(self) -> None:
        self.check("(exthdr)", "filter", lambda: self.nft("reset tcp option timestamp"),
                   lambda: run("nft", "flush", "ruleset"))

    def test_lo_by_another_name(self) -> None:
        """Rules that name it so are about it, and those for "lo" are about nothing."""
        def rename(name: str) -> None:
            run("ip", "link", "set", "dev", Path("/proc/self/net/dev").read_text().split("\n")[2].split(":")[0].strip(),
                "down", "name", name)
            run("ip", "link", "set", "dev", name, "up")

        self.addCleanup(rename, "lo")
        rename("loop0")
        until(lambda: self.guard.said()[-1].startswith("nothing forbids"), "lo is up", 5)
        port = self.pair.port
        for text, table, chain in (("table inet t", "inet t", "type filter hook input priority 0; iifname loop0"),
                                   ("table netdev t", "netdev t", "type filter hook ingress device loop0 priority 0;")):
            self.check(text, "filter", lambda table=table, chain=chain: load_rules(
                f"table {table} {{ chain c {{ {chain} tcp dport {port} counter; }}; }}"),
                lambda: run("nft", "flush", "ruleset"), lambda table=table: (nft_counted(table, "c"), HEADERS))
        self.unimpressed(lambda: self.nft("iifname lo counter"), lambda: run("nft", "flush", "ruleset"))
        if works("iptables-legacy", "-A", "INPUT", "-i", "loop0"):
            self.guard.wait_for("iptables (legacy)")
            run("iptables-legacy", "-F")
        # And a rule that stands when it gets its name.
        self.nft("iifname lo counter")
        said = len(self.guard.said())
        rename("lo")
        self.guard.wait_for("nftables: table inet t", said)

    def test_lo_goes_down(self) -> None:
        connection = self.fused()
        said = len(self.guard.said())
        run("ip", "link", "set", "lo", "down")
        self.addCleanup(run, "ip", "link", "set", "lo", "up")
        self.guard.wait_for("device: lo is down", said)
        self.assertEqual(self.pair.ask("push", connection, 1000)["taken"], 1000)
        self.assertEqual(self.pair.ask("pull", connection, 1000, 0.3)["got"], 0)
        run("ip", "link", "set", "lo", "up")
        self.assertEqual(self.pair.ask("pull", connection, 1000, 10)["got"], 1000)

    # --- iptables ---

    def iptables(self, tool: str) -> None:
        if not works(tool, "-S"):
            self.skipTest(f"{tool} does not work here")
        rule = ("INPUT", "-i", "lo", "-p", "tcp", "--dport", str(self.pair.port))

        def count() -> tuple[tuple[int, int], int]:
            line = run(tool, "-L", "INPUT", "-v", "-n", "-x").splitlines()[2].split()
            return (int(line[0]), int(line[1])), HEADERS

        self.check("chain INPUT, rule", "filter", lambda: run(tool, "-A", *rule), lambda: run(tool, "-D", *rule), count)
        for harmless in (("INPUT", "-p", "tcp", "--dport", "9", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP"),
                         ("INPUT", "-p", "tcp", "--syn", "--dport", "1", "-j", "DROP"),
                         ("INPUT", "-i", "eth+"), ("OUTPUT", "-p", "udp")):
            with self.subTest(tool=tool, rule=harmless):
                self.unimpressed(lambda harmless=harmless: run(tool, "-A", *harmless),
                                 lambda harmless=harmless: run(tool, "-D", *harmless))

    def test_iptables_legacy(self) -> None:
        self.iptables("iptables-legacy")

    def test_iptables_nft(self) -> None:
        self.iptables("iptables-nft")

    def test_ip6tables_legacy(self) -> None:
        if not works("ip6tables-legacy", "-S"):
            self.skipTest("ip6tables-legacy does not work here")
        self.check("ip6tables (legacy): table filter, chain OUTPUT", "filter",
                   lambda: run("ip6tables-legacy", "-A", "OUTPUT", "-o", "lo"),
                   lambda: run("ip6tables-legacy", "-F", "OUTPUT"))

    # --- tc and programs ---

    def test_tc_qdisc(self) -> None:
        tbf = ("root", "tbf", "rate", "8gbit", "burst", "2m", "latency", "50ms")
        if not works("tc", "qdisc", "add", "dev", "lo", *tbf):
            self.skipTest("this kernel has no tbf")
        run("tc", "qdisc", "del", "dev", "lo", "root")
        self.check("tc: qdisc tbf on lo", "filter", lambda: run("tc", "qdisc", "add", "dev", "lo", *tbf),
                   lambda: run("tc", "qdisc", "del", "dev", "lo", "root"))

    def test_tc_filter(self) -> None:
        self.unimpressed(lambda: run("tc", "qdisc", "add", "dev", "lo", "clsact"), lambda: None)
        added = ("tc", "filter", "add", "dev", "lo", "egress", "protocol", "ip", "u32", "match", "ip", "protocol", "6",
                 "0xff")
        if not works(*added):
            self.skipTest("this kernel has no u32 classifier")
        run("tc", "filter", "del", "dev", "lo", "egress")
        self.check("tc: u32 filter on lo, egress", "filter", lambda: run(*added),
                   lambda: run("tc", "filter", "del", "dev", "lo", "egress"))

    def program(self, kind: int) -> bpf.Counter:
        try:
            counter = bpf.Counter(kind)
        except OSError as problem:
            self.skipTest(f"this kernel takes no program: {problem}")
        self.addCleanup(counter.close)
        return counter

    def both_ways(self, counter: bpf.Counter, header: int):
        """A program on lo sees the answers too: 1 byte, and acknowledgements."""
        def count() -> tuple[tuple[int, int], int]:
            packets, size = counter.read()
            return (packets, size), header
        return count

    def check_program(self, counter: bpf.Counter, text: str, attach, detach, header: int) -> None:
        """As check(), but what is counted has the answers in it: one byte each."""
        def count() -> tuple[tuple[int, int], int]:
            packets, size = counter.read()
            return (packets, size - count.answers), header
        count.answers = 0

        def appear() -> None:
            attach()
            count.answers = 0

        original = self.pair.ask

        def ask(*words: object) -> dict:
            answer = original(*words)
            if words[0] == "send" and words[2] == MUCH:
                count.answers = 1
            return answer

        self.pair.ask = ask
        try:
            self.check(text, "filter", appear, detach, count)
        finally:
            self.pair.ask = original

    def test_xdp(self) -> None:
        counter = self.program(bpf.TYPE_XDP)
        try:
            counter.attach_lo(bpf.ATTACH_XDP, bpf.XDP_GENERIC)
        except OSError as problem:
            self.skipTest(f"no XDP on lo: {problem}")
        os.close(counter.link)
        self.check_program(counter, "XDP: program", lambda: counter.attach_lo(bpf.ATTACH_XDP, bpf.XDP_GENERIC),
                           lambda: os.close(counter.link) or setattr(counter, "link", -1), HEADERS + ETHERNET)

    def test_tcx(self) -> None:
        counter = self.program(bpf.TYPE_SCHED_CLS)
        try:
            counter.attach_lo(bpf.TCX_INGRESS)
        except OSError as problem:
            self.skipTest(f"no tcx: {problem}")
        os.close(counter.link)
        self.check_program(counter, "tcx: program", lambda: counter.attach_lo(bpf.TCX_INGRESS),
                           lambda: os.close(counter.link) or setattr(counter, "link", -1), HEADERS + ETHERNET)

    def test_cgroup(self) -> None:
        """A program in the group above the process's: it counts for that process, and for no other."""
        root = unified_groups()
        counter = self.program(bpf.TYPE_CGROUP_SKB)
        upper = Path(root, f"loopfast-test-{os.getpid()}")
        lower = upper / "lower"
        try:
            lower.mkdir(parents=True)
            self.addCleanup(lambda: [folder.rmdir() for folder in (lower, upper)])
            outside, self.pair = self.pair, Pair(self, user=None, group=str(lower))
        except OSError as problem:
            self.skipTest(f"no control group of our own: {problem}")
        bystander = outside.ask("new")["number"]

        def attach() -> None:
            counter.attach_cgroup(str(upper), bpf.CGROUP_INGRESS)

        self.check_program(counter, "forbids in 2 control groups: cgroup: program", attach, lambda: (
            self.assertTrue(outside.ask("send", bystander, 10_000)["ring"]),
            self.assertTrue(outside.ask("new")["ring"]),
            counter.detach_cgroup(str(upper), bpf.CGROUP_INGRESS)), HEADERS)
        self.assertTrue(outside.ask("send", bystander, 10_000)["ring"])
        self.pair.close()

    def test_cgroup_that_is_removed(self) -> None:
        """A group that is no more keeps its programs for the sockets that were made in it."""
        counter = self.program(bpf.TYPE_CGROUP_SKB)
        groups = [unified_groups() / f"loopfast-{name}-{os.getpid()}" for name in ("removed", "left")]
        for group in groups:
            group.mkdir()
            self.addCleanup(works, "rmdir", str(group))
        said = len(self.guard.said())
        counter.attach_cgroup(str(groups[0]), bpf.CGROUP_INGRESS)
        self.guard.wait_for("cgroup: program", said)
        pair = Pair(self, group=str(groups[0]))  # its listener's socket is made there
        pair.ask("group", groups[1])
        groups[0].rmdir()
        time.sleep(SEEN)
        before = counter.read()
        new = pair.ask("new")
        self.assertIn("filter", new["reasons"], new)
        pair.ask("send", new["number"], MUCH)
        self.assertGreater(counter.read()[1] - before[1], MUCH)
        self.assertTrue(self.pair.ask("new")["ring"])  # others are not concerned
        pair.close()

    def test_ways_that_close(self) -> None:
        """Addresses, routes and routing rules are each connection's own matter: the guard makes them ask again."""
        prepare_ways(self)
        said = self.guard.said()
        for what, address, close, reopen in WAYS_CLOSED:
            with self.subTest(what=what):
                pair = Pair(self, user=NOBODY, addresses=(address,))
                connection = pair.ask("new")
                self.assertTrue(connection["ring"], connection)
                run(*close)
                try:
                    time.sleep(SEEN)
                    pair.ask("push", connection["number"], 50_000)
                    self.assertEqual(pair.ask("pull", connection["number"], 50_000, 0.3)["got"], 0)
                    self.assertEqual(pair.ask("look", connection["number"])["reasons"][0], "not-local")
                finally:
                    run(*reopen)
                self.assertEqual(pair.ask("pull", connection["number"], 50_000, 20)["got"], 50_000)
                pair.close()
        self.assertTrue(self.pair.ask("new")["ring"])
        self.assertEqual(self.guard.said(), said)

    def test_rules_beyond_counting(self) -> None:
        """Chains that are reached on thousands of ways, and a large set that many rules look into, are judged once."""
        depth = 14
        jumps = "".join(f"chain j{i} {{ meta mark 1 jump j{i + 1}; meta mark 2 jump j{i + 1}; }}; " for i in reversed(range(depth)))
        elements = ", ".join(f"10.{i >> 8}.{i & 255}.1" for i in range(20_000))
        looks = "".join(f"udp dport {i} counter; ip saddr @s accept; " for i in range(1, 200))
        load_rules(f"table inet t {{ chain j{depth} {{ udp dport 9 counter; }}; {jumps} set s {{ type ipv4_addr; elements = {{ {elements} }}; }}; "
                   f"chain c {{ type filter hook input priority 0; jump j0; }}; chain d {{ type filter hook input priority 1; {looks} }}; }}")
        time.sleep(SEEN)
        self.assertTrue(self.pair.ask("new")["ring"], self.guard.said())
        used = []
        for _ in range(5):
            said = len(self.guard.said())
            begin = self.guard.processor_time()
            load_rules("add table inet u; add chain inet u c { type filter hook input priority 2; }; add rule inet u c counter")
            self.guard.wait_for("table inet u", said)
            used.append(self.guard.processor_time() - begin)
            run("nft", "delete", "table", "inet", "u")
            self.guard.wait_for("nothing forbids", said + 1)
        # It took seconds: each way and each look by itself. The processor's time does not depend on who else is there.
        self.assertLess(statistics.median(used), 0.5, used)

    def test_cgroup_of_the_first(self) -> None:
        """A process's very first connection, whose other end is in another group."""
        counter = self.program(bpf.TYPE_CGROUP_SKB)
        group = unified_groups() / f"loopfast-first-{os.getpid()}"
        group.mkdir()
        self.addCleanup(group.rmdir)
        said = len(self.guard.said())
        counter.attach_cgroup(str(group), bpf.CGROUP_EGRESS)
        self.guard.wait_for("cgroup: program", said)
        self.pair.ask("serve")
        inside = Pair(self, group=str(group))
        self.assertEqual(inside.ask("dial", self.pair.port)["reason"], "filter")
        inside.close()
        self.pair.ask("serve")
        self.assertEqual(Pair(self).ask("dial", self.pair.port)["reason"], "none")

    # --- IPsec ---

    def test_ipsec(self) -> None:
        policy = ("src", "::1", "dst", "::1", "dir", "out", "tmpl", "proto", "esp", "mode", "transport", "level", "use")
        if not works("ip", "xfrm", "policy", "add", *policy):
            self.skipTest("this kernel has no IPsec")
        run("ip", "xfrm", "policy", "flush")
        self.check("IPsec: policy", "filter", lambda: run("ip", "xfrm", "policy", "add", *policy),
                   lambda: run("ip", "xfrm", "policy", "flush"))
        for other in (("src", "10.1.0.0/16", "dst", "10.2.0.0/16", *policy[4:]),
                      ("src", "127.0.0.1", "dst", "127.0.0.1", *policy[4:]), ("src", "::1", "dst", "::1", "dir", "out")):
            self.unimpressed(lambda other=other: run("ip", "xfrm", "policy", "add", *other),
                             lambda: run("ip", "xfrm", "policy", "flush"))

    def test_ipsec_default(self) -> None:
        accept = ("in", "accept", "out", "accept", "fwd", "accept")
        if not works("ip", "xfrm", "policy", "setdefault", *accept):
            self.skipTest("this kernel has no such default")
        self.check("IPsec: what no policy allows", "filter",
                   lambda: run("ip", "xfrm", "policy", "setdefault", "in", "block"),
                   lambda: run("ip", "xfrm", "policy", "setdefault", *accept))

    # --- captures ---

    def test_capture(self) -> None:
        """tcpdump has every byte that was sent after it came."""
        for device in ("lo", "any"):
            with self.subTest(device=device):
                self.capture(device)

    def capture(self, device: str) -> None:
        file = self.folder / f"{device}.pcap"
        said = len(self.guard.said())
        dump = subprocess.Popen(["tcpdump", "-i", device, "-U", "--immediate-mode", "-B", "65536", "-w", str(file), "-y", "EN10MB" if device == "lo"
                                 else "LINUX_SLL2", "tcp", "dst", "port", str(self.pair.port)],
                                stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: dump.poll() is not None or dump.kill() or dump.wait())
        while "listening" not in (line := dump.stderr.readline()):
            self.assertNotEqual(line, "", "tcpdump ended")
        self.guard.wait_for("capture: ", said)
        connection = self.pair.ask("new")
        self.assertFalse(connection["ring"])
        self.assertIn("capture", connection["reasons"])
        sent = self.pair.ask("send", connection["number"], MUCH)["sent"]
        until(lambda: captured(file, self.pair.port) >= sent, "all bytes are captured", SOMETIME)
        self.assertEqual(captured(file, self.pair.port), sent)
        # The guard names who captures.
        self.guard.wait_for("capture: tcpdump[", said)
        said = len(self.guard.said())
        dump.send_signal(signal.SIGINT)
        dump.wait(10)
        dump.stderr.close()
        self.guard.wait_for("nothing forbids", said)
        self.fused()

    def test_capture_of_the_fused(self) -> None:
        connection = self.fused()
        self.pair.ask("send", connection, MUCH)
        file = self.folder / "later.pcap"
        said = len(self.guard.said())
        dump = subprocess.Popen(["tcpdump", "-i", "lo", "-U", "--immediate-mode", "-B", "65536", "-w", str(file), "tcp", "dst", "port",
                                 str(self.pair.port)], stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: dump.poll() is not None or dump.kill() or dump.wait())
        self.guard.wait_for("capture: ", said)
        while "listening" not in (line := dump.stderr.readline()):  # it opens its file after its socket
            self.assertNotEqual(line, "", "tcpdump ended")
        answer = self.pair.ask("send", connection, MUCH)
        self.assertEqual(answer["lanes"], [0, 0])
        self.assertIn("capture", answer["reasons"])
        until(lambda: captured(file, self.pair.port) >= MUCH, "all bytes are captured", SOMETIME)
        self.assertEqual(captured(file, self.pair.port), MUCH)
        dump.send_signal(signal.SIGINT)
        dump.wait(10)
        dump.stderr.close()

    def test_captures_in_turn(self) -> None:
        """One after the other, each is seen as soon as the first."""
        import socket
        came, went = [], []
        for _ in range(6):
            said = len(self.guard.said())
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)):
                came.append(self.guard.wait_for("capture: ", said))
                time.sleep(0.1)  # it is named meanwhile
            went.append(self.guard.wait_for("nothing forbids", said))
        self.assertLess(statistics.median(came), SEEN, came)
        self.assertLess(statistics.median(went), SEEN, went)

    def test_capture_of_something_else(self) -> None:
        """A packet socket for ARP, as many programs have one, sees no TCP."""
        import socket
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)):
            self.unimpressed(lambda: None, lambda: None)

    def test_raw_socket(self) -> None:
        import socket
        holder: list[socket.socket] = []
        self.check("a raw socket for TCP", "capture",
                   lambda: holder.append(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)),
                   lambda: holder.pop().close())

    # --- delays ---

    def test_under_load(self) -> None:
        """How long it takes from the guard's seeing a rule until a connection that is streaming has left."""
        self.pair.ask("load", "on")
        try:
            other = Pair(self, user=NOBODY)
            connection = other.ask("new")["number"]
            other.ask("send", connection, 1_000_000)
            took = []
            for _ in range(5):
                time.sleep(0.3)  # the one that streams is a new one by then, and on the ring
                fresh = other.ask("new")
                self.assertTrue(fresh["ring"], fresh)
                said = len(self.guard.said())
                begin = time.monotonic()
                self.nft("counter")
                self.guard.wait_for("nftables: ", said)
                noticed = time.monotonic()
                answer = other.ask("send", fresh["number"], 50_000)
                took.append(time.monotonic() - noticed)
                self.assertEqual(answer["lanes"], [0, 0])
                # The one that streams all the time as well, which is asked from outside.
                until(lambda: "ring" not in [one["lane"] for one in status(self.pair.pid)], "both have left")
                print(f"seen after {(noticed - begin) * 1e3:.1f} ms, left after {took[-1] * 1e3:.1f} ms")
                run("nft", "flush", "ruleset")
                self.guard.wait_for("nothing forbids", said)
            self.assertLess(statistics.median(took), SOON, took)
        finally:
            result = self.pair.ask("load", "off")
        self.assertEqual(result["problem"], "")
        self.assertGreater(result["left"], 0, result)


if __name__ == "__main__":
    main(needs=["nft", "iptables-nft", "tc", "tcpdump"])
