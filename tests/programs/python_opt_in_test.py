#!/usr/bin/env python3
"""Opting one socket in from Python: the ioctl as the documentation shows it, its effect, its errors, and
what it says where loopfast is not loaded."""

import ctypes
import errno
import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from harness.case import SIO_LOOPBACK_FAST_PATH, Case, main, on_ring, opt_in
from harness.process import LIBRARY, clean_environment
from harness.wait import until

ON = struct.pack("i", 1)


def listener(on: bool, family: int = socket.AF_INET, address: str = "127.0.0.1") -> socket.socket:
    server = socket.socket(family)
    if on:
        opt_in(server)
    server.bind((address, 0))
    server.listen()
    return server


class OptIn(Case):
    def pair(self, server_on: bool, client_on: bool, family: int = socket.AF_INET,
             address: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
        with listener(server_on, family, address) as server:
            client = socket.socket(family)
            self.addCleanup(client.close)
            if client_on:
                opt_in(client)
            client.connect(server.getsockname())
            accepted, _ = server.accept()
            self.addCleanup(accepted.close)
        for sock in (client, accepted):
            sock.settimeout(20)
        return client, accepted

    def moved(self, one: socket.socket, other: socket.socket, seconds: float = 20) -> bool:
        """Exchanges, until both ends are on the ring lane or will not be."""
        end = time.monotonic() + seconds
        for _ in range(10):
            self.exchange(one, other)
            if on_ring(one) and on_ring(other) or time.monotonic() > end:
                break
        return on_ring(one) and on_ring(other)

    def exchange(self, one: socket.socket, other: socket.socket) -> None:
        for sender, receiver in ((one, other), (other, one)) * 3:
            data = os.urandom(100_000)
            thread = threading.Thread(target=sender.sendall, args=(data,))
            thread.start()
            received = bytearray()
            while len(received) < len(data):
                part = receiver.recv(1 << 16)
                self.assertTrue(part)
                received += part
            thread.join()
            self.assertTrue(received == data)

    def test_both_ends_must(self) -> None:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.8.9.10"),
                                (socket.AF_INET6, "::1")):
            for server_on in (True, False):
                for client_on in (True, False):
                    with self.subTest(address=address, server=server_on, client=client_on):
                        client, accepted = self.pair(server_on, client_on, family, address)
                        if server_on and client_on:
                            self.assertTrue(self.moved(client, accepted))
                        else:
                            self.exchange(client, accepted)
                            self.assertFalse(on_ring(client) or on_ring(accepted))
                        client.close()
                        self.assertEqual(accepted.recv(1), b"")
                        accepted.close()

    def test_integers_and_buffers(self) -> None:
        """The argument in the forms that fcntl.ioctl takes; FALSE takes it back; a number that is not 0
        or 1 is a Boolean, too."""
        for argument, expected in ((ON, True), (bytearray(ON), True), (struct.pack("i", -7), True),
                                   (struct.pack("q", 1), True), (struct.pack("i", 0), False)):
            with self.subTest(argument=argument):
                client = socket.socket()
                self.addCleanup(client.close)
                with listener(True) as server:
                    opt_in(client)
                    fcntl.ioctl(client, SIO_LOOPBACK_FAST_PATH, argument)
                    client.connect(server.getsockname())
                    accepted, _ = server.accept()
                self.addCleanup(accepted.close)
                self.assertEqual(self.moved(client, accepted), expected)
                client.close()
                accepted.close()

    def test_on_a_connected_socket(self) -> None:
        """Success, without effect."""
        client, accepted = self.pair(False, False)
        opt_in(client)
        opt_in(accepted)
        self.exchange(client, accepted)
        self.assertFalse(on_ring(client) or on_ring(accepted))
        client, accepted = self.pair(True, True)
        opt_in(client, 0)
        self.assertTrue(self.moved(client, accepted))

    def fails_with(self, number: int, fd: object, argument: object = ON) -> None:
        with self.assertRaises(OSError) as caught:
            fcntl.ioctl(fd, SIO_LOOPBACK_FAST_PATH, argument)
        self.assertEqual(errno.errorcode[caught.exception.errno], errno.errorcode[number])

    def test_errors(self) -> None:
        with socket.socket() as closed:
            number = closed.fileno()
        self.fails_with(errno.EBADF, number)
        with tempfile.TemporaryFile() as file:
            self.fails_with(errno.ENOTSOCK, file)
        reader, writer = os.pipe()
        self.fails_with(errno.ENOTSOCK, writer)
        os.close(reader)
        os.close(writer)
        for arguments in ((socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_INET6, socket.SOCK_DGRAM),
                          (socket.AF_UNIX, socket.SOCK_STREAM), (socket.AF_UNIX, socket.SOCK_DGRAM),
                          (socket.AF_NETLINK, socket.SOCK_RAW)):
            with socket.socket(*arguments) as sock:
                self.fails_with(errno.EOPNOTSUPP, sock)
        with socket.socket() as sock:
            self.fails_with(errno.EFAULT, sock, 0)  # an address: nothing is there
            self.fails_with(errno.EFAULT, sock, 8)
            opt_in(sock)

    def test_the_functions(self) -> None:
        """The C functions of loopfast.h by way of ctypes: what a program in any language can call."""
        library = ctypes.CDLL(str(LIBRARY), use_errno=True)
        library.loopfast_reason_name.restype = ctypes.c_char_p
        with socket.socket() as sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            self.assertEqual(library.loopfast_enable(sock.fileno(), 1), 0)
            self.assertEqual(library.loopfast_enable(datagrams.fileno(), 1), -1)
            self.assertEqual(ctypes.get_errno(), errno.EOPNOTSUPP)
        client, accepted = self.pair(False, True)
        self.exchange(client, accepted)
        self.assertEqual(library.loopfast_lane(client.fileno()), 0)
        self.assertEqual(library.loopfast_reason_name(library.loopfast_reason(accepted.fileno())), b"policy")

    def test_how_soon(self) -> None:
        """Accepted before the first byte: the second exchange is on the ring at both ends."""
        client, accepted = self.pair(True, True)
        for number in range(2):
            client.sendall(b"request")
            self.assertEqual(accepted.recv(100), b"request")
            self.assertEqual(on_ring(accepted), number > 0)
            accepted.sendall(b"answer")
            self.assertEqual(client.recv(100), b"answer")
            self.assertEqual(on_ring(client), number > 0)

    def test_reasons_that_pass(self) -> None:
        """A connection that a child holds as well is "shared", and moves when the child has gone; one that was
        half closed before it moved is "ending"."""
        library = ctypes.CDLL(str(LIBRARY), use_errno=True)
        library.loopfast_reason_name.restype = ctypes.c_char_p

        def reason(sock: socket.socket) -> bytes:
            return library.loopfast_reason_name(library.loopfast_reason(sock.fileno()))

        client, accepted = self.pair(True, True)
        go, waits = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(waits)
            os.read(go, 1)
            os._exit(0)
        os.close(go)
        self.exchange(client, accepted)
        self.assertEqual((on_ring(client), reason(accepted)), (False, b"shared"))
        os.close(waits)
        os.waitpid(child, 0)
        self.assertTrue(self.moved(client, accepted))

        client, accepted = self.pair(True, True)
        client.sendall(b"x")
        client.shutdown(socket.SHUT_WR)
        while accepted.recv(100):
            pass
        self.assertEqual(reason(accepted), b"ending")

    def test_begun_by_sending(self) -> None:
        """MSG_FASTOPEN connects and sends in one: such a connection moves like any other."""
        with listener(True) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
            client = socket.socket()
            self.addCleanup(client.close)
            opt_in(client)
            client.sendto(b"begin", socket.MSG_FASTOPEN, server.getsockname())
            accepted, _ = server.accept()
            self.addCleanup(accepted.close)
        self.assertEqual(accepted.recv(100), b"begin")
        self.assertTrue(self.moved(client, accepted))

    def test_options_that_change_nothing(self) -> None:
        """What is so already, and what the kernel refuses, is no reason to leave the ring."""
        client, accepted = self.pair(True, True)
        self.assertTrue(self.moved(client, accepted))
        peek_offset, filters = 42, 26
        client.setsockopt(socket.SOL_SOCKET, peek_offset, -1)
        with self.assertRaises(OSError):
            client.setsockopt(socket.SOL_SOCKET, filters, bytes(16))
        with self.assertRaises(OSError):
            client.setsockopt(socket.IPPROTO_TCP, 31, b"nosuch")  # TCP_ULP
        self.exchange(client, accepted)
        self.assertTrue(on_ring(client) and on_ring(accepted))
        client.setsockopt(socket.SOL_SOCKET, peek_offset, 0)
        self.exchange(client, accepted)
        self.assertFalse(on_ring(client) or on_ring(accepted))

    def test_no_memory(self) -> None:
        """Where there is no memory for the first stream, that is the reason; none is kept in vain."""
        script = ("import ctypes, resource\n"
                  f"library = ctypes.CDLL({str(LIBRARY)!r})\n"
                  "library.loopfast_reason_name.restype = ctypes.c_char_p\n"
                  "def used(): return int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
                  "before = used()\n"
                  "resource.setrlimit(resource.RLIMIT_AS, (before + room, before + room))\n"
                  "import socket\n"  # which makes an epoll set already
                  "s = socket.socket()\n"
                  "more = [socket.socket() for _ in range(10)]\n"
                  "print(library.loopfast_reason_name(library.loopfast_reason(s.fileno())).decode(),\n"
                  "      used() - before < 16 << 20)\n")
        environment = clean_environment({"LD_PRELOAD": str(LIBRARY), "LOOPFAST": "on"})
        for megabytes in (16, 40):  # for nothing, for a part
            said = subprocess.run([sys.executable, "-c", f"room = {megabytes} << 20\n{script}"], env=environment,
                                  capture_output=True, text=True, check=True)
            self.assertEqual(said.stdout, "limit True\n")

    def test_without_the_library(self) -> None:
        """ENOTTY, and the program goes on."""
        script = ("import errno, fcntl, socket, struct\n"
                  "s = socket.socket()\n"
                  f"try: fcntl.ioctl(s, {SIO_LOOPBACK_FAST_PATH}, struct.pack('i', 1))\n"
                  "except OSError as e: print(errno.errorcode[e.errno])\n")
        run = subprocess.run([sys.executable, "-c", script], env=clean_environment(), text=True, timeout=30,
                             capture_output=True, check=True)
        self.assertEqual(run.stdout, "ENOTTY\n")

    def test_under_run(self) -> None:
        """`loopfast run` opts in every connection, one with traffic; opting out wins over it."""
        script = """
import ctypes, fcntl, socket, struct, sys
library = ctypes.CDLL(None)
for out in (False, True):
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.socket()
    if out:
        fcntl.ioctl(client, 0x98000010, struct.pack("i", 0))
    client.connect(server.getsockname())
    accepted, _ = server.accept()
    lanes = []
    for size in (10, 5000, 10, 10, 10):
        client.sendall(bytes(size))
        assert len(accepted.recv(size, socket.MSG_WAITALL)) == size
        accepted.sendall(bytes(size))
        assert len(client.recv(size, socket.MSG_WAITALL)) == size
        lanes.append(library.loopfast_lane(client.fileno()))
    print(lanes)
"""
        lines = self.start(sys.executable, "-c", script).succeed().splitlines()
        self.assertEqual(lines[0][:3] + lines[0][-2:], "[0,1]")
        self.assertEqual(lines[1], "[0, 0, 0, 0, 0]")

    def test_makefile_and_forks(self) -> None:
        """Python's buffered files over a socket, and a forked child that goes on with it."""
        client, accepted = self.pair(True, True)
        self.exchange(client, accepted)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                client.close()
                with accepted.makefile("rwb") as file:
                    for line in file:
                        file.write(line[::-1][1:] + b"\n")
                        file.flush()
                code = 0
            finally:
                os._exit(code)
        accepted.close()
        with client.makefile("rwb") as file:
            for number in range(2000):
                line = b"%d " % number * (number % 90 + 1)
                file.write(line + b"\n")
                file.flush()
                self.assertEqual(file.readline(), line[::-1] + b"\n")
        self.assertTrue(on_ring(client))
        client.shutdown(socket.SHUT_WR)
        statuses: list[int] = []
        until(lambda: statuses or [statuses.append(status) for pid, status in [os.waitpid(child, os.WNOHANG)] if pid],
              "the child ends")
        self.assertEqual(statuses, [0])
        self.assertEqual(client.recv(1), b"")


if __name__ == "__main__":
    main()
