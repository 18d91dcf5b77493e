#!/usr/bin/env python3
"""MariaDB: a thread for each connection, blocking sockets with poll and MSG_DONTWAIT behind them; its client, dump
and load, large packets, a killed connection and a killed query."""

import hashlib
import os
import pwd
import signal
import subprocess
import time

from harness.case import free_port, main
from harness.compared import Compared, Lane, scaled
from harness.process import Program
from harness.wait import until

USER = pwd.getpwuid(os.getuid()).pw_name
ROWS = scaled(4000, 100_000)


class MariaDb(Compared):
    def setUp(self) -> None:
        super().setUp()
        self.start("mariadb-install-db", "--no-defaults", f"--datadir={self.folder}/fresh", "--auth-root-authentication-method=normal",
                   "--skip-test-db", f"--user={USER}", front=(), cwd=self.folder).succeed(120)

    def server(self, lane: Lane) -> Program:
        self.data = self.folder / f"data-{lane.name}"
        self.start("cp", "-r", self.folder / "fresh", self.data, front=()).succeed()
        self.port = free_port()
        server = self.serve(self.port, "mariadbd", "--no-defaults", f"--datadir={self.data}", f"--port={self.port}",
                            "--bind-address=127.0.0.1", f"--socket={self.folder}/s-{lane.name}", f"--user={USER}",
                            f"--pid-file={self.data}/pid", "--max-allowed-packet=64M", "--innodb-flush-log-at-trx-commit=0",
                            "--innodb-buffer-pool-size=64M", "--skip-name-resolve", front=lane.server)
        self.sql(lane, "create database t")
        return server

    def client(self, lane: Lane, name: str, *options: object, **more: object) -> Program:
        return self.start(name, "--no-defaults", "-uroot", "-h127.0.0.1", f"-P{self.port}", "--protocol=tcp",
                          "--max-allowed-packet=64M", *options, front=lane.client, **more)

    def sql(self, lane: Lane, text: str, *options: object) -> str:
        return self.client(lane, "mariadb", "-N", "-B", *options, "-e", text).succeed(90)

    def test_work(self) -> None:
        rows = [(number, hashlib.md5(str(number).encode()).hexdigest() * (number % 20 + 1)) for number in range(ROWS)]
        (self.folder / "rows").write_text("".join(f"{number}\t{text}\n" for number, text in rows))

        def scenario(lane: Lane) -> object:
            server = self.server(lane)
            before = self.holds(server)
            results = [self.sql(lane, f"""
                use t; create table r (n int primary key, s text) engine=innodb;
                load data local infile '{self.folder}/rows' into table r;
                select count(*), md5(group_concat(md5(s) order by n)) from r;
                start transaction; update r set s = concat(s, '!'); select count(*) from r where s like '%!'; rollback;
                select count(*) from r where s like '%!'""", "--local-infile=1")]
            all_rows = self.sql(lane, "select * from t.r order by n")
            self.assertTrue(all_rows == (self.folder / "rows").read_text())
            # A packet of many megabytes each way, and one too large.
            big = self.folder / "big.sql"
            big.write_text(f"select md5('{'b' * 12_000_000}'); select repeat('x', 20000000);")
            with big.open() as file:
                answer = self.client(lane, "mariadb", "-N", "-B", stdin=file.fileno()).succeed(90)
            results.append(hashlib.sha256(answer.encode()).hexdigest())
            # Dump and load again.
            dump = self.client(lane, "mariadb-dump", "--skip-dump-date", "--skip-comments", "t").succeed(90)
            (self.folder / "dump").write_text(dump)
            self.sql(lane, "create database again")
            with (self.folder / "dump").open() as file:
                self.client(lane, "mariadb", "again", stdin=file.fileno()).succeed(90)
            results += [hashlib.sha256(dump.encode()).hexdigest(),
                        self.sql(lane, "checksum table t.r, again.r").replace("again.r", "t.r").splitlines()[0]]
            # Many statements in one session, and sessions at once.
            sessions = []
            for number in range(4):
                path = self.folder / f"session{number}"
                path.write_text("".join(f"select {number}, {one}, repeat('{number}', {one % 700});\n"
                                        for one in range(scaled(400, 10_000))))
                with path.open() as file:
                    sessions.append(self.client(lane, "mariadb", "-N", "-B", stdin=file.fileno()))
            results += [hashlib.sha256(session.succeed(90).encode()).hexdigest() for session in sessions]
            self.killed(lane, results)
            self.holds_again(server, before, 40)  # tables that it keeps open; the segments are what counts
            self.assertEqual(server.stop(signal.SIGTERM, 60), 0, server.output()[-2000:])
            return results

        self.compare(scenario, fused=5)

    def killed(self, lane: Lane, results: list) -> None:
        """A query is killed and the session goes on; a connection is killed; a client is killed."""
        def session() -> tuple[Program, int]:
            one = self.client(lane, "mariadb", "-N", "-B", "--force", "--unbuffered", stdin=subprocess.PIPE)
            self.say(one, "select repeat('w', 5000); select concat('id ', connection_id());")
            until(lambda: "id " in one.output() and one.output().endswith("\n"), "the session began")
            return one, int(one.output().rpartition("id ")[2])

        one, identity = session()
        self.say(one, "select sleep(60); select 'goes on';")
        running = f"select count(*) from information_schema.processlist where id = {identity} and state = 'User sleep'"
        until(lambda: self.sql(lane, running) == "1\n", "the query runs")
        begin = time.monotonic()
        self.sql(lane, f"kill query {identity}")
        until(lambda: "goes on" in one.output(), "the session goes on")
        self.sql(lane, f"kill connection {identity}")
        self.say(one, "select 1;")
        until(lambda: "ERROR" in one.output() or "gone away" in one.output(), "it hears of its end")
        self.assertLess(time.monotonic() - begin, 50, "nobody slept for its minute")
        one.kill()
        two, identity = session()
        two.kill()
        gone = f"select count(*) from information_schema.processlist where id = {identity}"
        until(lambda: self.sql(lane, gone) == "0\n", "the server noticed")
        results.append("killed")

    @staticmethod
    def say(session: Program, text: str) -> None:
        session.process.stdin.write(text.encode() + b"\n")
        session.process.stdin.flush()


if __name__ == "__main__":
    main(needs=["mariadbd", "mariadb", "mariadb-dump", "mariadb-install-db"])
