#!/usr/bin/env python3
"""PostgreSQL: a process forked for each connection, psql and pgbench (libpq) as clients; loading and reading
some 10 MB, notifications, cancelled queries, a client that is killed, an orderly end."""

import glob
import hashlib
import os
import pwd
import re
import signal
import subprocess
import time
from pathlib import Path

from harness import observe
from harness.case import FAST, Case, free_port, main, skip
from harness.compared import Compared, Lane, scaled
from harness.process import Program, session_members
from harness.wait import until

BINARIES = Path((sorted(glob.glob("/usr/lib/postgresql/*/bin")) or ["/nowhere"])[-1])
USER = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
OTHER = "postgres" if os.getuid() == 0 else None


class Postgres(Case):
    """One server for each test: a fresh one starts in two seconds."""

    def setUp(self) -> None:
        super().setUp()
        self.folder.chmod(0o777)
        self.port = free_port()
        self.environment = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": USER, "PGDATABASE": "postgres",
                            "HOME": str(self.folder)}
        self.start(BINARIES / "initdb", "-D", self.folder / "data", "-A", "trust", "-N", "--locale=C.UTF-8",
                   front=(), user=OTHER, cwd=self.folder).succeed(120)
        self.server = self.serve(self.port, BINARIES / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-F",
                                 "-c", "listen_addresses=127.0.0.1", "-k", self.folder, user=OTHER, cwd=self.folder)
        until(lambda: "ready to accept" in self.server.output(), "the server is ready", 30)

    def client(self, *command: object, front: tuple[str, ...] = FAST, **options: object) -> Program:
        # libpq's programs run as the server's user: two users do not share memory.
        return self.start(*command, front=front, env=self.environment, user=OTHER, cwd=self.folder, **options)

    def psql(self, text: str, front: tuple[str, ...] = FAST) -> str:
        return self.client("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", text, front=front).succeed(60)

    def session(self, front: tuple[str, ...] = FAST) -> Program:
        """A psql that takes its commands from a pipe."""
        return self.client("psql", "-XqAt", front=front, stdin=subprocess.PIPE)

    @staticmethod
    def say(session: Program, text: str) -> None:
        session.process.stdin.write(text.encode() + b"\n")
        session.process.stdin.flush()

    def on_ring(self) -> int:
        return sum(observe.lanes(pid, self.port)["ring"] for pid in session_members(self.server.pid) +
                   children(self.server.pid))

    def stop_server(self) -> None:
        self.assertEqual(self.server.stop(signal.SIGINT, 30), 0, self.server.output())
        self.assertNotIn("PANIC", self.server.output())
        self.assertNotIn("terminated by signal", self.server.output())

    def test_benchmark(self) -> None:
        self.client("pgbench", "-i", "-q", "-s", "2").succeed(120)
        for options, front in ((["-c4", "-j2", "-T3"], FAST),
                               (["-n", "-c4", "-j2", "-T2", "-S", "-M", "prepared"], FAST),
                               (["-n", "-c2", "-T1", "-S"], ())):
            def begin(options: list[str] = options, front: tuple[str, ...] = front) -> Program:
                return self.client("pgbench", *options, front=front)

            load = self.load_on_ring(begin, lambda: self.on_ring() >= 2) if front else begin()
            text = load.succeed(60)
            self.assertRegex(text, r"number of failed transactions: 0 ")
        sums = self.psql("select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history), "
                         "(select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history)")
        self.assertEqual(sums, "t|t\n")
        self.stop_server()

    def test_copy(self) -> None:
        """12 MB in and out again, with both kinds of client; the server's own checksum agrees."""
        rows = "".join(f"{number}\t{hashlib.md5(str(number).encode()).hexdigest() * 3}\n" for number in range(120_000))
        (self.folder / "rows").write_text(rows)
        self.psql("create table t (n int, s text)")
        for front in (FAST, ()):
            self.psql("truncate t", front)
            self.psql(f"\\copy t from '{self.folder}/rows'", front)
            self.psql(f"\\copy (select * from t order by n) to '{self.folder}/back'", front)
            self.assertTrue((self.folder / "back").read_text() == rows)
            (self.folder / "back").unlink()
            self.assertEqual(self.psql("select count(*), md5(string_agg(s, '' order by n)) from t", front).strip(),
                             "120000|" + hashlib.md5("".join(row.split("\t")[1].strip() for row in rows.splitlines())
                                                     .encode()).hexdigest())
            self.assertEqual(len(self.psql("select repeat('x', 9000000)", front)), 9_000_001)
        self.stop_server()

    def test_notifications(self) -> None:
        """LISTEN in sessions that sleep; NOTIFY by another."""
        listeners = [self.session(front) for front in (FAST, FAST, ())]
        for listener in listeners:
            self.say(listener, "listen news; select repeat('warm', 2000); select 'listening';")
            until(lambda listener=listener: listener.output().endswith("listening\n"), "the session listens")
        notifier = self.session()
        for number in range(200):
            self.say(notifier, f"notify news, 'number {number}';")
        self.say(notifier, "select 'sent';")
        until(lambda: "sent" in notifier.output(), "all is sent")
        for listener in listeners:
            self.say(listener, "select 1;")  # psql looks for notifications after a command
            until(lambda listener=listener: listener.output().count("Asynchronous notification") == 200,
                  "all are heard")
            numbers = [line.partition('"number ')[2].partition('"')[0] for line in listener.output().splitlines()
                       if "Asynchronous" in line]
            self.assertEqual(numbers, [str(number) for number in range(200)])
            listener.process.stdin.close()
            listener.succeed(30)
        self.stop_server()

    def test_cancel(self) -> None:
        """A query is cancelled by a second connection (psql's Ctrl-C), and by the server's function."""
        running = ("select count(*) from pg_stat_activity where query = 'select pg_sleep(60);' and state = 'active'")
        for _ in range(3):
            session = self.session()
            self.say(session, "select repeat('warm', 3000); select 'begin';\nselect pg_sleep(60);")
            until(lambda: self.psql(running) == "1\n", "the query runs")
            begin = time.monotonic()
            os.kill(session.pid, signal.SIGINT)  # a psql that reads a script cancels and ends
            session.wait(40)
            self.assertIn("canceling statement due to user request", session.output())
            self.assertLess(time.monotonic() - begin, 50, "nobody slept for its minute")
        session = self.session()
        self.say(session, "select repeat('warm', 3000);\nselect pg_sleep(60);")
        until(lambda: self.psql(running) == "1\n", "the query runs")
        self.psql("select pg_cancel_backend(pid) from pg_stat_activity where query = 'select pg_sleep(60);'")
        until(lambda: "canceling statement" in session.output(), "it is cancelled")
        self.say(session, "select 'alive';")
        until(lambda: session.output().endswith("alive\n"), "the session goes on")
        session.process.stdin.close()
        session.succeed(30)
        self.stop_server()

    def test_killed(self) -> None:
        """A killed client's backend goes; a terminated backend's client hears of it."""
        session = self.session()
        self.say(session, "select repeat('warm', 3000); create table kept (n int); begin; insert into kept values (1);"
                          "select 'open';")
        until(lambda: session.output().endswith("open\n"), "the transaction is open")
        session.kill()
        count = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
        until(lambda: self.psql(count) == "0\n", "its backend has gone")
        self.assertEqual(self.psql("select count(*) from kept"), "0\n")
        other = self.session()
        self.say(other, "select repeat('warm', 3000); select 'here';")
        until(lambda: other.output().endswith("here\n"), "another session")
        self.psql("select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'client backend' "
                  "and pid <> pg_backend_pid()")
        self.say(other, "select 1;")
        until(lambda: "terminating connection" in other.output(), "it hears of its end")
        other.process.stdin.close()
        other.wait(30)
        self.stop_server()


class PostgresInLanes(Compared):
    """What moves much and what ends badly: COPY and large objects both ways, pipelined statements, LISTEN, a cancel
    request, a backend that dies in the middle and takes all sessions with it."""

    def setUp(self) -> None:
        super().setUp()
        self.folder.chmod(0o777)
        self.start(BINARIES / "initdb", "-D", self.folder / "fresh", "-A", "trust", "-N", "--locale=C.UTF-8",
                   front=(), user=OTHER, cwd=self.folder).succeed(120)
        self.environment: dict[str, str] = {}

    def server(self, lane: Lane) -> Program:
        self.folder.chmod(0o777)
        data, port = self.folder / f"data-{lane.name}", free_port()
        self.start("cp", "-r", self.folder / "fresh", data, front=(), user=OTHER).succeed()
        self.environment = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": USER, "PGDATABASE": "postgres",
                            "HOME": str(self.folder)}
        server = self.serve(port, BINARIES / "postgres", "-D", data, "-p", str(port), "-F", "-c", "listen_addresses=127.0.0.1",
                            "-k", self.folder, user=OTHER, cwd=self.folder, front=lane.server)
        until(lambda: "ready to accept" in server.output(), "the server is ready", 30)
        return server

    def psql(self, lane: Lane, *commands: str) -> str:
        options = [word for command in commands for word in ("-c", command)]
        return self.start("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", *options, front=lane.client, env=self.environment,
                          user=OTHER, cwd=self.folder).succeed(90)

    def session(self, lane: Lane) -> Program:
        return self.start("psql", "-XqAt", front=lane.client, env=self.environment, user=OTHER, cwd=self.folder,
                          stdin=subprocess.PIPE)

    def test_lanes(self) -> None:
        rows = "".join(f"{number}\t{hashlib.md5(str(number).encode()).hexdigest() * 3}\n"
                       for number in range(scaled(20_000, 1_000_000)))
        (self.folder / "rows").write_text(rows)
        blob = os.urandom(scaled(3_000_000, 200_000_000))
        (self.folder / "blob").write_bytes(blob)
        for file in ("rows", "blob"):
            (self.folder / file).chmod(0o666)

        def scenario(lane: Lane) -> object:
            server, results = self.server(lane), []
            results.append(self.psql(lane, "create table t (n int, s text)", f"\\copy t from '{self.folder}/rows'",
                                     "select count(*), md5(string_agg(s, '' order by n)) from t"))
            for form in ("text", "binary"):
                self.psql(lane, f"\\copy (select * from t order by n) to '{self.folder}/back' (format {form})")
                back = (self.folder / "back").read_bytes()
                results.append((form, hashlib.md5(back).hexdigest()))
                self.psql(lane, "truncate t", f"\\copy t from '{self.folder}/back' (format {form})")
                (self.folder / "back").unlink()
            results.append(self.psql(lane, "select count(*), md5(string_agg(s, '' order by n)) from t"))
            self.psql(lane, f"\\lo_import '{self.folder}/blob'", f"\\lo_export :LASTOID '{self.folder}/exported'")
            self.assertTrue((self.folder / "exported").read_bytes() == blob)
            (self.folder / "exported").unlink()
            results.append(self.psql(lane, "select count(*) from pg_largeobject_metadata"))
            self.psql(lane, "select lo_unlink(oid) from pg_largeobject_metadata")
            load = self.start("pgbench", "-i", "-q", "-s", "1", front=lane.client, env=self.environment, user=OTHER)
            load.succeed(60)
            for count, *options in ((3000, "-S", "-M", "simple"), (3000, "-M", "extended"), (500, "-M", "prepared", "-C")):
                text = self.start("pgbench", "-n", "-c4", "-j2", "-t", str(scaled(40, count)), *options, front=lane.client,
                                  env=self.environment, user=OTHER).succeed(120)
                results.append(re.search(r"actually processed: (.*)", text)[1])
                self.assertRegex(text, r"number of failed transactions: 0 ")
            self.cancelled_and_killed(lane, server)
            self.assertEqual(server.stop(signal.SIGINT, 30), 0, server.output()[-2000:])
            return results

        self.compare(scenario, fused=10)

    def cancelled_and_killed(self, lane: Lane, server: Program) -> None:
        sessions = [self.session(lane) for _ in range(3)]
        for one in sessions:
            one.process.stdin.write(b"listen news; select repeat('warm', 3000); select 'pid', pg_backend_pid();\n")
            one.process.stdin.flush()
            until(lambda one=one: "pid|" in one.output() and one.output().endswith("\n"), "the session began")
        self.psql(lane, *(f"notify news, 'number {number}'" for number in range(30)))
        for one in sessions:
            one.process.stdin.write(b"select 1;\n")
            one.process.stdin.flush()
            until(lambda one=one: one.output().count("Asynchronous notification") == 30, "all is heard")
        sessions[0].process.stdin.write(b"select pg_sleep(60);\n")
        sessions[0].process.stdin.flush()
        until(lambda: self.psql(lane, "select count(*) from pg_stat_activity where query = 'select pg_sleep(60);' "
                                      "and state = 'active'") == "1\n", "the query runs")
        os.kill(sessions[0].pid, signal.SIGINT)
        sessions[0].wait(40)
        self.assertIn("canceling statement due to user request", sessions[0].output())
        # A backend dies: the server ends every session, cleans up and begins anew.
        victim = int(sessions[1].output().partition("pid|")[2].split()[0])
        sessions[2].process.stdin.write(b"select pg_sleep(60);\n")
        sessions[2].process.stdin.flush()
        os.kill(victim, signal.SIGKILL)
        until(lambda: "terminating connection because of crash" in sessions[2].output() or
              "server closed the connection" in sessions[2].output(), "the other session hears of it")
        for one in sessions[1:]:
            one.process.stdin.close()
            one.wait(40)
        until(lambda: server.output().count("ready to accept connections") == 2, "the server began anew", 30)
        self.assertEqual(self.psql(lane, "select count(*) from t")[-1:], "\n")


def children(pid: int) -> list[int]:
    """Backends make sessions of their own."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


if __name__ == "__main__":
    if not (BINARIES / "initdb").exists():
        skip("postgresql not installed")
    main(needs=["psql"])
