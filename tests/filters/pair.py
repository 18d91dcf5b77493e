"""Both ends of opted-in connections in one process, told what to do by lines on standard input.

Started by the tests as whatever user and in whatever control group they want. Each line is a command and its
arguments, each answer one line of JSON:

    new              a new connection, with traffic until it is fused or will not be   -> number, lanes, reasons, where from
    send N BYTES     so many bytes from the connecting end to the accepting one, checked; and 1 byte back
    push N BYTES     only sent, not received, and without waiting for room   -> how many the stream took
    pull N BYTES SECONDS   receives so many, checked, or what comes in that time
    young            a new connection without traffic    -> number
    option N WHICH   sets one at an end (OPTIONS)
    look N           lanes and reasons now
    load on|off      a thread that streams over a connection of its own both ways and checks every byte
    filter N         gives the accepted end a socket filter that lets everything pass
    listener         gives the listener one; what it accepts inherits it
    close N
    serve            accepts one connection of another process, and sends back what comes over it
    dial PORT        a connection to one that serves, with traffic   -> lane and reason of this end
    group FOLDER     moves the process to another control group
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

import bpf

SIO_LOOPBACK_FAST_PATH = 0x98000010
LIBRARY = ctypes.CDLL(None)
LIBRARY.loopfast_reason_name.restype = ctypes.c_char_p
BLOCK = bytes((i * 31 + (i >> 8) * 7) & 0xff for i in range(1 << 16))


#: Two threads that connect to one listener must not take each other's ends.
PAIRING = threading.Lock()


def pattern(offset: int, size: int) -> bytes:
    start = offset % len(BLOCK)
    return (BLOCK * ((start + size) // len(BLOCK) + 1))[start:start + size]


#: Where the connections come from, if it is said.
SOURCE = ""


def opt_in(sock: socket.socket) -> None:
    fcntl.ioctl(sock, SIO_LOOPBACK_FAST_PATH, struct.pack("i", 1))


def attach_filter(sock: socket.socket) -> None:
    code = struct.pack("HBBI", 0x06, 0, 0, 0xffffffff)  # return all of the packet
    buffer = ctypes.create_string_buffer(code)
    sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HL", 1, ctypes.addressof(buffer)))


def receive(sock: socket.socket, size: int) -> bytes:
    parts = []
    while size > 0:
        part = sock.recv(min(size, 1 << 18))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def sign(end: socket.socket) -> None:
    """TCP_MD5SIG: what its peer sends has no signature, and is dropped."""
    address, port = end.getpeername()
    where = struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton(address)
    end.setsockopt(socket.IPPROTO_TCP, 14, where.ljust(128, b"\0") + struct.pack("=BBHi", 0, 0, 3, 0) + b"key".ljust(80, b"\0"))


def block(end: socket.socket) -> None:
    """IP_XFRM_POLICY: nothing goes out of it."""
    selector = struct.pack("=16s16sHHHHHBBBiI", b"", b"", 0, 0, 0, 0, socket.AF_INET, 0, 0, 0, 0, 0).ljust(56, b"\0")
    forever = struct.pack("=4Q", *[(1 << 64) - 1] * 4)
    end.setsockopt(socket.IPPROTO_IP, 17, selector + forever + bytes(64) + struct.pack("=IIBBBB4x", 0, 0, 1, 1, 0, 0))


def bind_elsewhere(end: socket.socket) -> None:
    """SO_BINDTODEVICE: to one that is not lo."""
    subprocess.run("ip link show e0 || ip link add e0 type veth peer name e1 && ip link set e0 up", shell=True, check=True,
                   capture_output=True, env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"})
    end.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"e0\0")


#: By the connecting end, but for the signature, which the accepting one wants.
OPTIONS = {"signature": lambda connection: sign(connection.other), "policy": lambda connection: block(connection.one),
           "device": lambda connection: bind_elsewhere(connection.one),
           "map": lambda connection: bpf.drop_what_is_sent(connection.one.fileno())}


class Connection:
    def __init__(self, listener: socket.socket, young: bool = False) -> None:
        self.one = socket.socket()
        opt_in(self.one)
        if SOURCE:
            self.one.bind((SOURCE, 0))
        with PAIRING:
            self.one.connect(listener.getsockname())
            self.other, _ = listener.accept()
        for end in (self.one, self.other):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.settimeout(20)
        self.sent = self.received = 0
        for _ in range(0 if young else 30):
            self.send(100)
            if self.lanes() == [1, 1]:
                break

    def lanes(self) -> list[int]:
        return [LIBRARY.loopfast_lane(end.fileno()) for end in (self.one, self.other)]

    def look(self) -> dict:
        reasons = [LIBRARY.loopfast_reason_name(LIBRARY.loopfast_reason(end.fileno())).decode()
                   for end in (self.one, self.other)]
        return {"ring": self.lanes() == [1, 1], "lanes": self.lanes(), "reasons": reasons, "sent": self.sent,
                "from": self.one.getsockname()[1]}

    def send(self, size: int) -> None:
        """In pieces that fit, so that one thread can do both."""
        while size > 0:
            piece = min(size, 1 << 15)
            self.one.sendall(pattern(self.sent, piece))
            self.sent += piece
            self.pull(piece)
            size -= piece
        self.other.sendall(b"!")
        if receive(self.one, 1) != b"!":
            raise AssertionError("the answer is missing")

    def push(self, size: int) -> int:
        taken = 0
        self.one.setblocking(False)
        try:
            while taken < size:
                piece = self.one.send(pattern(self.sent, min(size - taken, 1 << 15)))
                self.sent += piece
                taken += piece
        except BlockingIOError:
            pass
        finally:
            self.one.settimeout(20)
        return taken

    def pull(self, size: int, seconds: float = 20.0) -> int:
        self.other.settimeout(seconds)
        got = 0
        try:
            while got < size:
                part = self.other.recv(min(size - got, 1 << 18))
                if not part:
                    break
                if part != pattern(self.received, len(part)):
                    raise AssertionError(f"wrong bytes after {self.received}")
                self.received += len(part)
                got += len(part)
        except TimeoutError:
            pass
        finally:
            self.other.settimeout(20)
        return got

    def close(self) -> None:
        self.one.close()
        self.other.close()


class Load:
    """Streams over connections of its own, a new one after the other, and checks what comes."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.stop = False
        self.bytes = self.connections = self.fused = self.left = 0
        self.problem = ""
        self.reasons: dict[str, int] = {}
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        try:
            while not self.stop:
                connection = Connection(self.listener)
                fused = connection.lanes() == [1, 1]
                for _ in range(400):
                    if self.stop:
                        break
                    connection.send(20_000)
                    self.bytes += 20_000
                self.connections += 1
                self.fused += fused
                self.left += fused and connection.lanes() != [1, 1]
                for reason in connection.look()["reasons"]:
                    self.reasons[reason] = self.reasons.get(reason, 0) + 1
                connection.close()
        except BaseException as problem:  # pylint: disable=broad-except
            self.problem = repr(problem)

    def finish(self) -> dict:
        self.stop = True
        self.thread.join()
        return {"bytes": self.bytes, "connections": self.connections, "fused": self.fused, "left": self.left,
                "problem": self.problem, "reasons": self.reasons}


def serve(listener: socket.socket) -> None:
    end, _ = listener.accept()
    while data := end.recv(1 << 16):
        end.sendall(data)
    end.close()


def dial(port: int) -> dict:
    with socket.socket() as end:
        opt_in(end)
        end.connect(("127.0.0.1", port))
        for _ in range(100):
            end.sendall(pattern(0, 100))
            if receive(end, 100) != pattern(0, 100):
                raise AssertionError("wrong bytes")
        return {"lane": LIBRARY.loopfast_lane(end.fileno()),
                "reason": LIBRARY.loopfast_reason_name(LIBRARY.loopfast_reason(end.fileno())).decode()}


def main() -> None:
    listener = socket.socket()
    opt_in(listener)
    listener.bind((sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1", 0))
    listener.listen(64)
    connections: dict[int, Connection] = {}
    load: Load | None = None
    print(json.dumps({"port": listener.getsockname()[1], "pid": os.getpid()}), flush=True)
    for line in sys.stdin:
        words = line.split()
        answer: dict = {}
        begin = time.monotonic()
        try:
            if words[0] == "new":
                number = len(connections)
                connections[number] = Connection(listener)
                answer = {"number": number, **connections[number].look()}
            elif words[0] == "send":
                connections[int(words[1])].send(int(words[2]))
                answer = connections[int(words[1])].look()
            elif words[0] == "push":
                answer = {"taken": connections[int(words[1])].push(int(words[2]))}
            elif words[0] == "pull":
                answer = {"got": connections[int(words[1])].pull(int(words[2]), float(words[3]))}
            elif words[0] == "young":
                answer = {"number": len(connections)}
                connections[len(connections)] = Connection(listener, young=True)
            elif words[0] == "option":
                OPTIONS[words[2]](connections[int(words[1])])
            elif words[0] == "look":
                answer = connections[int(words[1])].look()
            elif words[0] == "filter":
                attach_filter(connections[int(words[1])].other)
            elif words[0] == "listener":
                attach_filter(listener)
            elif words[0] == "close":
                connections[int(words[1])].close()
            elif words[0] == "serve":
                threading.Thread(target=serve, args=(listener,), daemon=True).start()
            elif words[0] == "dial":
                answer = dial(int(words[1]))
            elif words[0] == "group":
                with open(f"{words[1]}/cgroup.procs", "w", encoding="ascii") as group:
                    group.write(str(os.getpid()))
            elif words == ["load", "on"]:
                load = Load(listener)
            elif words == ["load", "off"] and load is not None:
                answer = load.finish()
        except Exception as problem:  # pylint: disable=broad-except
            answer = {"error": repr(problem)}
        answer["seconds"] = round(time.monotonic() - begin, 4)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    SOURCE = sys.argv[2] if len(sys.argv) > 2 else ""
    main()
