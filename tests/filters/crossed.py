"""Two connections of one process, of which address translation makes two ends of a third one that is none.

    crossed.py DIALLED FROM PORT FROM     the first one: the port it dials and its own; the second one's

The one's accepted socket and the other's connecting one then have each other's addresses. Prints as JSON what each
client got back that was not its own, the lanes' reasons, and whether the addresses do mirror each other.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import socket
import struct
import sys

SIO_LOOPBACK_FAST_PATH = 0x98000010

LIBRARY = ctypes.CDLL(None)
LIBRARY.loopfast_reason_name.restype = ctypes.c_char_p
ROUNDS = 200


def opt_in(sock: socket.socket) -> None:
    fcntl.ioctl(sock, SIO_LOOPBACK_FAST_PATH, struct.pack("i", 1))


def message(number: int, i: int) -> bytes:
    return struct.pack("II", number, i) + bytes(4 * number)


def main() -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opt_in(listener)
    listener.bind(("127.0.0.1", 8080))
    listener.listen()
    clients, servers = [], []
    for dialled, source in (map(int, sys.argv[1:3]), map(int, sys.argv[3:5])):
        client = socket.socket()
        opt_in(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("127.0.0.1", source))
        client.connect(("127.0.0.1", dialled))
        clients.append(client)
        servers.append(listener.accept()[0])
    for one in clients + servers:
        one.settimeout(5)
    wrong = []
    try:
        for i in range(ROUNDS):
            for number, client in enumerate(clients):
                client.sendall(message(number, i))
            for server in servers:
                server.sendall(server.recv(64))
            for number, client in enumerate(clients):
                if client.recv(64) != message(number, i):
                    wrong.append((number, i))
    except OSError as problem:
        wrong.append(str(problem))
    print(json.dumps({
        "wrong": wrong,
        "reasons": [LIBRARY.loopfast_reason_name(LIBRARY.loopfast_reason(one.fileno())).decode() for one in clients + servers],
        "mirrored": clients[1].getsockname() == servers[0].getpeername() and clients[1].getpeername() == servers[0].getsockname(),
    }))


main()
