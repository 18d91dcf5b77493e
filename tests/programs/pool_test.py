#!/usr/bin/env python3
"""PgBouncer between clients and PostgreSQL: one thread and libevent for all of them, connections to the server that
outlive the clients and change hands at every transaction, a pause and a server that begins anew behind it."""

import re
import signal
import subprocess
from pathlib import Path

from harness.case import free_port, main, skip
from harness.compared import LANES, Compared, Lane, scaled
from harness.process import Program
from harness.wait import until

from postgres_test import BINARIES, OTHER, USER


class Pool(Compared):
    def setUp(self) -> None:
        super().setUp()
        self.folder.chmod(0o777)
        self.start(BINARIES / "initdb", "-D", self.folder / "fresh", "-A", "trust", "-N", "--locale=C.UTF-8",
                   front=(), user=OTHER, cwd=self.folder).succeed(120)
        self.run_as = {"user": OTHER, "cwd": self.folder}

    def postgres(self, lane: Lane, data: Path) -> Program:
        server = self.serve(self.behind, BINARIES / "postgres", "-D", data, "-p", str(self.behind), "-F",
                            "-c", "listen_addresses=127.0.0.1", "-k", "", front=lane.server, **self.run_as)
        until(lambda: "ready to accept" in server.output(), "the server is ready")
        return server

    def bouncer(self, lane: Lane) -> Program:
        self.folder.chmod(0o777)
        configuration = self.folder / f"pgbouncer-{lane.name}.ini"
        configuration.write_text(f"""
[databases]
postgres = host=127.0.0.1 port={self.behind} user={USER}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
ignore_startup_parameters = extra_float_digits
server_check_delay = 0
admin_users = {USER}
""")
        return self.serve(self.port, "pgbouncer", configuration, front=lane.server, **self.run_as)

    def client(self, lane: Lane, *command: str, port: int = 0, **more: object) -> Program:
        return self.start(*command, front=lane.client, **self.run_as, **more,
                          env={"PGHOST": "127.0.0.1", "PGPORT": str(port or self.port), "PGUSER": USER,
                               "PGDATABASE": "postgres", "HOME": str(self.folder)})

    def psql(self, lane: Lane, text: str, database: str = "postgres") -> str:
        return self.client(lane, "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", text).succeed()

    def test_pool(self) -> None:
        def scenario(lane: Lane) -> object:
            self.folder.chmod(0o777)
            data = self.folder / f"data-{lane.name}"
            self.start("cp", "-r", self.folder / "fresh", data, front=(), user=OTHER).succeed()
            self.port, self.behind = free_port(), free_port()
            server = self.postgres(lane, data)
            bouncer = self.bouncer(lane)
            results = []
            self.client(lane, "pgbench", "-i", "-q", "-s", "1").succeed()
            # Many clients for three connections to the server; a new connection for each transaction in the last.
            for options in (["-c12"], ["-c12", "-S"], ["-c4", "-S", "-C"]):
                text = self.client(lane, "pgbench", "-n", "-j2", "-t", str(scaled(20, 3000)), *options).succeed(120)
                results.append(re.search(r"actually processed: (.*)", text)[1])
                self.assertRegex(text, r"number of failed transactions: 0 ")
            sums = self.psql(lane, "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from "
                                   "pgbench_history), (select count(*) from pgbench_history)")
            results.append(sums)
            # Much in one answer and in one question, through the small buffers in between.
            results.append(len(self.psql(lane, f"select repeat('x', {scaled(3_000_000, 100_000_000)})")))
            results.append(self.psql(lane, "select md5(string_agg(md5(n::text), '' order by n)) from "
                                           f"generate_series(1, {scaled(30_000, 1_000_000)}) n"))
            copied = self.folder / "copied"
            self.psql(lane, f"\\copy pgbench_accounts to '{copied}'")
            self.psql(lane, "create table again (like pgbench_accounts)")
            self.psql(lane, f"\\copy again from '{copied}'")
            copied.unlink()
            results.append(self.psql(lane, "select count(*), sum(aid) from again"))
            self.anew(lane, data, server, results)
            self.assertEqual(bouncer.stop(signal.SIGINT), 0, bouncer.output()[-1000:])
            return results

        # Clients that come and go within a few bytes are not worth it; those of the two long runs are, and the pool.
        self.compare(scenario, fused=8, inside=True, lanes=LANES)

    def anew(self, lane: Lane, data: Path, server: Program, results: list) -> None:
        """A client waits through a pause of the pool, in which the server ends and another begins."""
        waiting = self.client(lane, "psql", "-XqAt", stdin=subprocess.PIPE)

        def ask(number: int) -> None:
            waiting.process.stdin.write(f"select repeat('w', 3000), 'answer ' || {number};\n".encode())
            waiting.process.stdin.flush()

        ask(1)
        until(lambda: waiting.output().endswith("answer 1\n"), "the first answer")
        self.psql(lane, "pause", "pgbouncer")
        ask(2)
        self.assertEqual(server.stop(signal.SIGINT), 0, server.output()[-1000:])
        again = self.postgres(lane, data)
        self.psql(lane, "resume", "pgbouncer")
        until(lambda: waiting.output().endswith("answer 2\n"), "the second answer, of another server")
        waiting.process.stdin.close()
        waiting.succeed()
        results.append(waiting.output().count("answer"))
        self.assertEqual(again.stop(signal.SIGINT), 0, again.output()[-1000:])


if __name__ == "__main__":
    if not (BINARIES / "initdb").exists():
        skip("postgresql not installed")
    main(needs=["psql", "pgbouncer"])
