#!/usr/bin/env python3
"""Node (libuv): http with kept connections, the cluster module, whose primary passes connections to its workers
or shares the listener with them, and pipes of net sockets. Go and Perl as peers: Go's runtime makes its system
calls itself and stays on the kernel lane."""

import hashlib
import os
import random
import shutil
import socket
import threading
import unittest

from harness.case import connect, free_port, main
from harness.compared import Compared, Lane, scaled
from harness.process import Program, fast
from harness.wait import until

SIZE = scaled(5_000_000, 100_000_000)

CLUSTER = """
const cluster = require('cluster'), http = require('http'), crypto = require('crypto');
cluster.schedulingPolicy = process.argv[3] === 'shared' ? cluster.SCHED_NONE : cluster.SCHED_RR;
if (cluster.isPrimary) {
  for (let i = 0; i < 2; ++i) cluster.fork();
  process.on('SIGTERM', () => { for (const id in cluster.workers) cluster.workers[id].kill(); });
  cluster.on('exit', () => { if (Object.keys(cluster.workers).length === 0) process.exit(0); });
} else {
  http.createServer((request, response) => {
    const hash = crypto.createHash('sha256');
    request.on('data', part => hash.update(part));
    request.on('end', () => {
      response.setHeader('X-Worker', cluster.worker.id);
      response.end(hash.digest('hex') + 'f'.repeat(Number(request.url.slice(1))));
    });
  }).listen(Number(process.argv[2]), '127.0.0.1');
}
"""

CLIENT = """
const http = require('http'), crypto = require('crypto');
const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
const [port, rounds] = process.argv.slice(2).map(Number);
let fill = 0, exchanges = 0;
function post(size) {
  return new Promise((resolve, reject) => {
    const body = crypto.randomBytes(size), extra = (++fill * 7919) % 60000;
    const wanted = crypto.createHash('sha256').update(body).digest('hex') + 'f'.repeat(extra);
    const request = http.request({ port, host: '127.0.0.1', method: 'POST', path: '/' + extra, agent }, response => {
      const parts = [];
      response.on('data', part => parts.push(part));
      response.on('end', () => {
        ++exchanges;
        if (Buffer.concat(parts).toString() === wanted) resolve(); else reject(new Error('differs'));
      });
    });
    request.on('error', reject);
    // Without a length: chunked, in pieces.
    for (let at = 0; at < size; at += 40000) request.write(body.subarray(at, at + 40000));
    request.end();
  });
}
(async () => {
  for (let round = 0; round < rounds; ++round)
    await Promise.all([1, 1000, 30000, 200000, 1, 5000, 70000, 1000000].map(post));
  console.log(exchanges + ' exchanges');
  agent.destroy();
})().catch(error => { console.error(error); process.exit(1); });
"""

RELAY = """
const net = require('net');
const [port, to] = process.argv.slice(2).map(Number);
net.createServer({ allowHalfOpen: true }, near => {
  const far = net.connect({ port: to, host: '127.0.0.1', allowHalfOpen: true });
  near.pipe(far);
  far.pipe(near);
  near.on('error', () => far.destroy());
  far.on('error', () => near.destroy());
}).listen(port, '127.0.0.1');
"""

ECHO = """
const net = require('net');
net.createServer({ allowHalfOpen: true }, socket => socket.pipe(socket)).listen(Number(process.argv[2]), '127.0.0.1');
"""

GO = """
package main

import (
\t"fmt"
\t"io"
\t"net"
\t"os"
)

func main() {
\tif os.Args[1] == "serve" {
\t\tlistener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[2])
\t\tif err != nil {
\t\t\tpanic(err)
\t\t}
\t\tfor {
\t\t\tconnection, err := listener.Accept()
\t\t\tif err != nil {
\t\t\t\tpanic(err)
\t\t\t}
\t\t\tgo func() {
\t\t\t\tio.Copy(connection, connection)
\t\t\t\tconnection.Close()
\t\t\t}()
\t\t}
\t}
\tconnection, err := net.Dial("tcp", "127.0.0.1:"+os.Args[2])
\tif err != nil {
\t\tpanic(err)
\t}
\tgo func() {
\t\tio.Copy(connection, os.Stdin)
\t\tconnection.(*net.TCPConn).CloseWrite()
\t}()
\tcount, err := io.Copy(os.Stdout, connection)
\tfmt.Fprintln(os.Stderr, count, err)
}
"""

PERL_SERVER = r"""
use strict; use IO::Socket::INET; use IO::Select;
my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ARGV[0], Listen => 20, ReuseAddr => 1) or die $!;
my $select = IO::Select->new($server);
while (my @ready = $select->can_read) {
    for my $one (@ready) {
        if ($one == $server) { my $new = $server->accept; binmode $new; $select->add($new); next; }
        my $count = sysread($one, my $data, 50000);
        if (!$count) { $select->remove($one); close $one; next; }
        for (my $at = 0; $at < $count;) { my $n = syswrite($one, $data, $count - $at, $at) or last; $at += $n; }
    }
}
"""

PERL_CLIENT = r"""
use strict; use IO::Socket::INET; use Digest::SHA qw(sha256_hex);
my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $ARGV[0]) or die $!;
binmode $socket; $socket->autoflush(1); my $lines = 0;
for my $n (1 .. 300) {                       # PerlIO, by the line
    my $line = "line $n " . ("p" x ($n * 13 % 2000)) . "\n";
    print $socket $line; my $back = <$socket>; die "differs at $n" if $back ne $line; ++$lines;
}
my $data = join "", map { pack "N", $_ * 2654435761 % 4294967296 } 1 .. $ARGV[1] / 4;
if (my $pid = fork) {                        # the child writes, the parent reads
    my $got = "";
    while (length $got < length $data) { my $n = sysread($socket, $got, 65536, length $got); die "end" unless $n; }
    waitpid $pid, 0; die "child" if $?; die "differs" if $got ne $data;
} else {
    for (my $at = 0; $at < length $data;) { my $n = syswrite($socket, $data, 30000, $at); die $! unless $n; $at += $n; }
    exit 0;
}
print "$lines lines, ", sha256_hex($data), "\n";
"""


class Node(Compared):
    def script(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def test_cluster(self) -> None:
        """Two workers: connections passed on by the primary, and a shared listener."""
        server_script, client_script = self.script("cluster.js", CLUSTER), self.script("client.js", CLIENT)

        def scenario(lane: Lane) -> object:
            results = []
            for how in ("passed", "shared"):
                port = free_port()
                server = self.serve(port, "node", server_script, str(port), how, front=lane.server)
                if how == "shared":
                    self.both_listen(server, port)
                clients = [self.start("node", client_script, str(port), str(scaled(5, 100)), front=lane.client)
                           for _ in range(2)]
                results.append((how, [client.succeed(120) for client in clients]))
                self.assertEqual(server.stop(seconds=20), 0, server.output())
            return results

        # A connection that was passed on is the kernel's in the worker; a worker that accepts itself fuses.
        self.compare(scenario, fused=4)

    def both_listen(self, server: Program, port: int) -> None:
        """Both workers have the listener."""
        del server
        until(lambda: connect(port, False).close() or True, "a worker accepts")

    def test_pipes(self) -> None:
        """client -> relay -> echo and back: a half close travels all the way."""
        relay_script, echo_script = self.script("relay.js", RELAY), self.script("echo.js", ECHO)

        def scenario(lane: Lane) -> object:
            port, behind = free_port(), free_port()
            self.serve(behind, "node", echo_script, str(behind), front=lane.server)
            relay = self.serve(port, "node", relay_script, str(port), str(behind), front=lane.server)
            before = self.holds(relay)
            for number in range(3):
                data = random.Random(number).randbytes(SIZE)
                with connect(port, fast=bool(lane.client)) as client:
                    # Exchanges first: all of the rest may lie in the kernel's buffers, its end with it, before
                    # the relay runs, and a connection that is half closed is not fused.
                    received = bytearray()
                    while len(received) < 100_000:
                        client.sendall(data[len(received):len(received) + 4000])
                        received += client.recv(4000, socket.MSG_WAITALL)
                    rest = memoryview(data)[len(received):]
                    sender = threading.Thread(target=lambda: (client.sendall(rest), client.shutdown(socket.SHUT_WR)))
                    sender.start()
                    while part := client.recv(1 << 18):
                        received += part
                    sender.join()
                self.assertEqual(hashlib.sha256(received).digest(), hashlib.sha256(data).digest())
            self.holds_again(relay, before, 1)
            return SIZE

        # The test itself is the client, and writes no log: what is counted are the relay's own connections.
        self.compare(scenario, fused=3, inside=True)


class Others(Compared):
    def test_perl(self) -> None:
        def scenario(lane: Lane) -> object:
            port = free_port()
            server = self.serve(port, "perl", "-e", PERL_SERVER, str(port), front=lane.server)
            before = self.holds(server)
            clients = [self.start("perl", "-e", PERL_CLIENT, str(port), str(SIZE // 5), front=lane.client)
                       for _ in range(3)]
            results = [client.succeed(90) for client in clients]
            self.holds_again(server, before)
            return results

        self.compare(scenario, fused=3)

    @unittest.skipUnless(shutil.which("go"), "golang-go not installed")
    def test_go(self) -> None:
        """On the kernel lane, and its peers notice nothing."""
        (self.folder / "peer.go").write_text(GO)
        self.start("go", "build", "-o", self.folder / "peer", self.folder / "peer.go", front=(), cwd=self.folder,
                   env={"GOCACHE": str(self.folder / "cache"), "GOPATH": str(self.folder / "path"), "GO111MODULE": "off",
                        "CGO_ENABLED": "0"}).succeed(300)
        # `loopfast run` says that it is static and wants to be told to start it all the same.
        refused = self.start(self.folder / "peer", "serve", "9", front=fast())
        self.assertEqual(refused.wait(20), 126)
        self.assertIn("statically linked", refused.output())
        self.compare(self.go_and_perl, fused=0, options=["--force"])

    def go_and_perl(self, lane: Lane) -> object:
        port, results = free_port(), []
        server = self.serve(port, self.folder / "peer", "serve", str(port), front=lane.server)
        results.append(self.start("perl", "-e", PERL_CLIENT, str(port), str(SIZE // 5), front=lane.client).succeed(60))
        data = os.urandom(SIZE)
        (self.folder / "in").write_bytes(data)
        for other in ("go", "perl"):
            if other == "perl":
                port = free_port()
                server = self.serve(port, "perl", "-e", PERL_SERVER, str(port), front=lane.server)
            self.start("bash", "-c", f"exec {self.folder}/peer use {port} <{self.folder}/in >{self.folder}/out",
                       front=lane.client).succeed(60)
            self.assertTrue((self.folder / "out").read_bytes() == data)
            results.append((other, len(data)))
        server.require_alive()
        return results


if __name__ == "__main__":
    main(needs=["node", "perl"])
