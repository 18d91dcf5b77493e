#!/usr/bin/env python3
"""Messaging libraries, each with threads of its own for input and output: libzmq (edge by edge, megabytes written before
anybody reads) and nng (one-shot epoll, gathered writes). Requests and answers, pipelines, publishing; nothing lost,
nothing out of order."""

import ctypes.util
import subprocess
import sys

from harness.case import free_port, main, skip
from harness.compared import Compared, Lane, scaled

ZMQ_SERVER = """
import hashlib, sys, zmq
answers, pushed, news = sys.argv[1:4]
context = zmq.Context(io_threads=2)
def bound(kind, port):
    socket = context.socket(kind)
    socket.set_hwm(0)
    socket.bind("tcp://127.0.0.1:" + port)
    return socket
router, pull, publish = bound(zmq.ROUTER, answers), bound(zmq.PULL, pushed), bound(zmq.XPUB, news)
poller = zmq.Poller()
for socket in (router, pull, publish): poller.register(socket, zmq.POLLIN)
seen, digest, done = 0, hashlib.sha256(), False
while not done:
    for socket, _ in poller.poll():
        if socket is router:
            who, number, *parts = router.recv_multipart()
            if number == b"seen":
                router.send_multipart([who, number, b"%d" % seen, digest.hexdigest().encode()])
            elif number == b"end":
                router.send_multipart([who, number])
                done = True
            else:
                router.send_multipart([who, number, *parts])
        elif socket is pull:
            message = pull.recv()
            assert message.startswith(b"%d " % seen), (seen, message[:20])
            digest.update(message)
            seen += 1
        elif publish.recv() == b"\\x01n":
            for number in range(int(sys.argv[4])):
                publish.send(b"n%d " % number + b"p" * (number * 37 % 3000))
            publish.send(b"nend")
context.destroy(linger=10_000)
"""

ZMQ_CLIENT = """
import hashlib, random, sys, threading, zmq
answers, pushed, news = sys.argv[1:4]
count = int(sys.argv[4])
context = zmq.Context(io_threads=2)
def connected(kind, port):
    socket = context.socket(kind)
    socket.set_hwm(0)
    if kind == zmq.SUB: socket.subscribe(b"n")
    socket.connect("tcp://127.0.0.1:" + port)
    return socket
def push():
    # All of it at once: the library's queues, both kernel buffers and the ring are full of it.
    socket = connected(zmq.PUSH, pushed)
    for number in range(count):
        message = b"%d " % number + b"m" * (number * 131 % 20_000)
        digest.update(message)
        socket.send(message)
    socket.close(linger=30_000)
def ask(seed):
    socket, rng = connected(zmq.DEALER, answers), random.Random(seed)
    for start in range(0, count // 4, 20):
        batch = [[b"%d" % (start + n), rng.randbytes(rng.choice((0, 1, 300, 9000, 200_000) if n == 0 else (0, 1, 300, 9000))), b"x"]
                 for n in range(20)]
        for message in batch: socket.send_multipart(message)
        for message in batch: assert socket.recv_multipart() == message
    socket.close()
def listen():
    socket = connected(zmq.SUB, news)
    for number in range(count):
        assert socket.recv() == b"n%d " % number + b"p" * (number * 37 % 3000), number
    assert socket.recv() == b"nend"
    socket.close()
problems = []
def guarded(what, *arguments):
    try: what(*arguments)
    except BaseException as problem: problems.append(problem)
digest = hashlib.sha256()
threads = [threading.Thread(target=guarded, args=job) for job in ((push,), (listen,), (ask, 1), (ask, 2), (ask, 3))]
for thread in threads: thread.start()
for thread in threads: thread.join()
if problems: raise problems[0]
control = connected(zmq.DEALER, answers)
while True:
    control.send_multipart([b"seen"])
    _, seen, sum = control.recv_multipart()
    if int(seen) == count: break
assert sum.decode() == digest.hexdigest()
control.send_multipart([b"end"])
assert control.recv_multipart() == [b"end"]
context.destroy(linger=0)
print(count, "of each,", sum.decode()[:16])
"""

#: The little of nng that is needed: a socket is a structure of one number.
NNG = """
import ctypes, hashlib, sys
library = ctypes.CDLL(sys.argv[1])
class Socket(ctypes.Structure): _fields_ = [("number", ctypes.c_uint32)]
def good(result):
    assert result == 0, result
def opened(kind):
    socket = Socket()
    good(getattr(library, "nng_" + kind + "0_open")(ctypes.byref(socket)))
    good(library.nng_setopt_size(socket, b"recv-size-max", ctypes.c_size_t(0)))
    return socket
library.nng_setopt_size.argtypes = [Socket, ctypes.c_char_p, ctypes.c_size_t]
for name in ("nng_listen", "nng_dial"):
    getattr(library, name).argtypes = [Socket, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]
library.nng_send.argtypes = [Socket, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
library.nng_recv.argtypes = [Socket, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
library.nng_free.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
library.nng_close.argtypes = [Socket]
def send(socket, data): good(library.nng_send(socket, data, len(data), 0))
def receive(socket):
    data, size = ctypes.c_void_p(), ctypes.c_size_t()
    good(library.nng_recv(socket, ctypes.byref(data), ctypes.byref(size), 1))
    got = ctypes.string_at(data.value, size.value) if size.value else b""
    library.nng_free(data, size)
    return got
def url(port): return b"tcp://127.0.0.1:" + port.encode()
"""
NNG_SERVER = NNG + """
rep, pull = opened("rep"), opened("pull")
good(library.nng_listen(rep, url(sys.argv[2]), None, 0))
good(library.nng_listen(pull, url(sys.argv[3]), None, 0))
while (request := receive(rep)) != b"end":
    if request == b"pull":
        digest = hashlib.sha256()
        for number in range(int(sys.argv[4])):
            message = receive(pull)
            assert message.startswith(b"%d " % number), (number, message[:20])
            digest.update(message)
        request = digest.hexdigest().encode()
    send(rep, request)
send(rep, b"end")
sys.stdin.read()
"""
NNG_CLIENT = NNG + """
import random, threading
count = int(sys.argv[4])
req, push = opened("req"), opened("push")
good(library.nng_dial(req, url(sys.argv[2]), None, 0))
good(library.nng_dial(push, url(sys.argv[3]), None, 0))
for number in range(count // 4):
    data = random.Random(number).randbytes((1, 100, 4000, 70_000, 0, 500_000 if number < 40 else 5)[number % 6])
    send(req, data)
    assert receive(req) == data, number
digest = hashlib.sha256()
def pushing():
    for number in range(count):
        message = b"%d " % number + b"m" * (number * 131 % 20_000)
        digest.update(message)
        send(push, message)
thread = threading.Thread(target=pushing)
thread.start()
send(req, b"pull")
sum = receive(req)
thread.join()
assert sum.decode() == digest.hexdigest()
send(req, b"end")
assert receive(req) == b"end"
library.nng_close(push)
library.nng_close(req)
print(count, "of each,", sum.decode()[:16])
"""
LIBRARY = ctypes.util.find_library("nng")


class Messages(Compared):
    def script(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def test_zmq(self) -> None:
        server_script, client_script = self.script("server.py", ZMQ_SERVER), self.script("client.py", ZMQ_CLIENT)

        def scenario(lane: Lane) -> object:
            ports, count = [str(free_port()) for _ in range(3)], str(scaled(1200, 60_000))
            server = self.serve(int(ports[-1]), sys.executable, server_script, *ports, count, front=lane.server)
            said = self.start(sys.executable, client_script, *ports, count, front=lane.client).succeed(180)
            server.succeed()
            return said

        self.compare(scenario, fused=3)  # who only listens may have had all of it before its first call

    def test_nng(self) -> None:
        server_script, client_script = self.script("server.py", NNG_SERVER), self.script("client.py", NNG_CLIENT)

        def scenario(lane: Lane) -> object:
            arguments = [LIBRARY, str(free_port()), str(free_port()), str(scaled(1200, 60_000))]
            server = self.serve(int(arguments[2]), sys.executable, server_script, *arguments, front=lane.server,
                                stdin=subprocess.PIPE)
            said = self.start(sys.executable, client_script, *arguments, front=lane.client).succeed(180)
            server.process.stdin.close()
            server.succeed()
            return said

        self.compare(scenario, fused=2)


if __name__ == "__main__":
    if LIBRARY is None or subprocess.run([sys.executable, "-c", "import zmq"], capture_output=True, check=False).returncode:
        skip("python3-zmq or libnng1 not installed")
    main()
