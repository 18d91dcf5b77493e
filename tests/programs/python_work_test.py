#!/usr/bin/env python3
"""Python at work: multiprocessing over TCP (managers, listeners, pools that fork with connections open) and asyncio
(streams, TLS, sendfile, hundreds of connections, cancelled calls), each with loopfast on both ends, on either, on neither."""

import os
import sys

from harness.case import free_port, main
from harness.compared import Compared, Lane, scaled

MANAGER_SERVER = """
import multiprocessing.managers as managers, queue, sys, threading
tasks, results, store = queue.Queue(), queue.Queue(), {}
class Manager(managers.BaseManager): pass
Manager.register("tasks", callable=lambda: tasks)
Manager.register("results", callable=lambda: results)
Manager.register("store", callable=lambda: store, exposed=["__setitem__", "__getitem__", "__len__", "keys"])
server = Manager(("127.0.0.1", int(sys.argv[1])), authkey=b"k").get_server()
server.serve_forever()
"""

MANAGER_CLIENT = """
import hashlib, multiprocessing, multiprocessing.managers as managers, os, sys
port, rounds = int(sys.argv[1]), int(sys.argv[2])
class Manager(managers.BaseManager): pass
for name in ("tasks", "results", "store"): Manager.register(name)
def connect():
    manager = Manager(("127.0.0.1", port), authkey=b"k")
    manager.connect()
    return manager
def work(number):
    manager = connect()
    tasks, results = manager.tasks(), manager.results()
    results.put((number, "ready"))
    while (task := tasks.get()) is not None:
        results.put((task[0], hashlib.sha256(task[1]).hexdigest()))
    return number
def main():
    manager = connect()
    tasks, results, store = manager.tasks(), manager.results(), manager.store()
    for size in (1, 100_000, 3_000_000):      # the connection is in use when the workers are forked
        store[str(size)] = b"v" * size
    context = multiprocessing.get_context(sys.argv[3])
    workers = [context.Process(target=work, args=(number,)) for number in range(4)]
    for worker in workers: worker.start()
    assert sorted(results.get() for _ in workers) == [(number, "ready") for number in range(4)]    # so each gets some
    sent = {}
    for number in range(rounds):
        data = bytes([number % 251]) * (number * 997 % 200_000 + 1)
        sent[number] = hashlib.sha256(data).hexdigest()
        tasks.put((number, data))
    got = dict(results.get() for _ in range(rounds))
    assert got == sent, "results differ"
    for _ in workers: tasks.put(None)
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0, worker
    assert all(store[str(size)] == b"v" * size for size in (1, 100_000, 3_000_000))
    print(len(got), "tasks,", len(store), "values")
if __name__ == "__main__":
    main()
"""

LISTENER = """
import multiprocessing.connection as connection, os, sys
# A process forked for each connection, which its parent then closes.
with connection.Listener(("127.0.0.1", int(sys.argv[1])), authkey=b"k", backlog=50) as listener:
    while True:
        client = listener.accept()
        if os.fork() == 0:
            listener.close()
            try:
                while True:
                    client.send(client.recv()[::-1])
            except EOFError:
                os._exit(0)
        client.close()
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0: break
            except ChildProcessError:
                break
"""

TALKER = """
import multiprocessing.connection as connection, sys
ends = [connection.Client(("127.0.0.1", int(sys.argv[1])), authkey=b"k") for _ in range(8)]
count = 0
for number in range(int(sys.argv[2])):
    for place, end in enumerate(ends):
        end.send(("x" * (number * 37 % 5000), number, place))
    waiting = set(ends)
    while waiting:
        for end in connection.wait(list(waiting), 30):
            back = end.recv()
            assert back[1] == number and back[0] == ends.index(end) and len(back[2]) == number * 37 % 5000
            waiting.discard(end)
            count += 1
for end in ends: end.close()
print(count, "answers")
"""

ASYNC_SERVER = """
import asyncio, os, ssl, sys
port, tls_port, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
class Protocol(asyncio.BufferedProtocol):
    def __init__(self): self.buffer = bytearray(70_000)
    def connection_made(self, transport): self.transport = transport
    def get_buffer(self, hint): return self.buffer
    def buffer_updated(self, count): self.transport.write(bytes(self.buffer[:count]))
    def pause_writing(self): self.transport.pause_reading()
    def resume_writing(self): self.transport.resume_reading()
async def serve(reader, writer):
    loop = asyncio.get_running_loop()
    try:
        while line := await reader.readline():
            word, size = line.split()
            if word == b"file":
                with open(folder + "/file", "rb") as file:
                    await loop.sendfile(writer.transport, file, 0, int(size))
            elif word == b"zeros":
                writer.write(bytes(int(size)))
                await writer.drain()
            elif word == b"echo":
                writer.write(await reader.readexactly(int(size)))
                await writer.drain()
            elif word == b"silence":
                await asyncio.sleep(3600)
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()
async def main():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder + "/certificate", folder + "/key")
    plain = await asyncio.start_server(serve, "127.0.0.1", port, backlog=500)
    await asyncio.start_server(serve, "127.0.0.1", tls_port, ssl=context, backlog=500)
    await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", int(sys.argv[4]))
    await plain.serve_forever()
asyncio.run(main())
"""

ASYNC_CLIENT = """
import asyncio, hashlib, random, ssl, sys
port, tls_port, folder, echo_port, many, rounds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:7])
content = open(folder + "/file", "rb").read()
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
async def talk(number, tls):
    reader, writer = await asyncio.open_connection("127.0.0.1", tls_port if tls else port, ssl=context if tls else None)
    rng, done = random.Random(number), 0
    for _ in range(rounds):
        size = rng.choice((1, 500, 9000, 120_000))
        data = rng.randbytes(size)
        writer.write(b"echo %d\\n" % size + data)
        writer.write(b"zeros %d\\n" % size)
        assert await reader.readexactly(size) == data
        assert await reader.readexactly(size) == bytes(size)
        if not tls and rng.random() < 0.2:
            writer.write(b"file %d\\n" % len(content))
            assert await reader.readexactly(len(content)) == content
        done += 1
    # A call that is given up, and the connection with it.
    writer.write(b"silence 0\\n")
    try:
        await asyncio.wait_for(reader.read(1), 0.05)
        raise AssertionError("not silent")
    except asyncio.TimeoutError:
        pass
    writer.close()
    return done
async def flood():
    # A writer that is much faster than its reader: drain() must hold it back.
    reader, writer = await asyncio.open_connection("127.0.0.1", echo_port)
    piece, count = bytes(range(256)) * 256, 160
    async def write():
        for _ in range(count):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    task, digest = asyncio.create_task(write()), hashlib.sha256()
    while data := await reader.read(100_000):
        digest.update(data)
    await task
    assert digest.digest() == hashlib.sha256(piece * count).digest()
    writer.close()
async def main():
    results = await asyncio.wait_for(asyncio.gather(*(talk(number, number % 4 == 3) for number in range(many)), flood(), flood()), 120)
    print(sum(result or 0 for result in results), "rounds")
asyncio.run(main())
"""


class PythonWork(Compared):
    def script(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def test_managers(self) -> None:
        """Objects in another process; workers that were forked or spawned while the connection was in use."""
        server_script, client_script = self.script("server.py", MANAGER_SERVER), self.script("client.py", MANAGER_CLIENT)

        def scenario(lane: Lane) -> object:
            results = []
            for how in ("fork", "spawn"):
                port = free_port()
                server = self.serve(port, sys.executable, server_script, str(port), front=lane.server)
                before = self.holds(server)
                results.append(self.start(sys.executable, client_script, str(port), str(scaled(120, 3000)), how,
                                          front=lane.client).succeed(90))
                self.holds_again(server, before)
            return results

        self.compare(scenario, fused=8)

    def test_listener_that_forks(self) -> None:
        server_script, client_script = self.script("server.py", LISTENER), self.script("client.py", TALKER)

        def scenario(lane: Lane) -> object:
            port = free_port()
            server = self.serve(port, sys.executable, server_script, str(port), front=lane.server)
            before = self.holds(server)
            results = [self.start(sys.executable, client_script, str(port), str(scaled(150, 5000)), front=lane.client).succeed(90)
                       for _ in range(2)]
            self.holds_again(server, before)
            return results

        self.compare(scenario, fused=16)

    def test_asyncio(self) -> None:
        server_script, client_script = self.script("server.py", ASYNC_SERVER), self.script("client.py", ASYNC_CLIENT)
        self.start("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                   "-keyout", self.folder / "key", "-out", self.folder / "certificate", front=()).succeed()
        (self.folder / "file").write_bytes(os.urandom(400_000))

        def scenario(lane: Lane) -> object:
            port, tls_port, echo_port = free_port(), free_port(), free_port()
            server = self.serve(echo_port, sys.executable, server_script, str(port), str(tls_port), self.folder,
                                str(echo_port), front=lane.server)
            before = self.holds(server)
            many = scaled(100, 400)
            client = self.start(sys.executable, client_script, str(port), str(tls_port), self.folder, str(echo_port),
                                str(many), str(scaled(3, 40)), front=lane.client)
            said = client.succeed(180)
            # Those that were given up keep the server asleep in their sleep(); the others are gone.
            self.holds_again(server, (before[0] + 2 * many, before[1] + many))
            return said

        self.compare(scenario, fused=60)


if __name__ == "__main__":
    main(needs=["openssl"])
