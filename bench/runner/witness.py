"""Asks the kernel, not loopfast, which way the bytes of a server's connections went.

sock_diag reports for each TCP socket how many payload bytes the kernel has received on it (the same
numbers as `ss -ti`). Two looks while the programs are busy: on the kernel lane the sum grows by all that
the clients send, on the ring lane it stands still. So a result cannot carry the wrong lane's name, even
if loopfast itself were wrong about it.
"""

from __future__ import annotations

import socket
import struct
import time

from .process import Failed

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
INET_DIAG_INFO = 2
TCP_ESTABLISHED = 1
#: offset of tcpi_bytes_received in struct tcp_info (linux/tcp.h)
BYTES_RECEIVED = 128


def kernel_bytes_received(port: int) -> tuple[int, int]:
    """@return (connections, bytes the kernel delivered to them) of the server on 127.0.0.1:`port`."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
        # struct inet_diag_req_v2: family, protocol, ext, pad, states, then the socket id (48 bytes)
        request = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0,
                              1 << TCP_ESTABLISHED) + bytes(48)
        netlink.send(struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY,
                                 NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + request)
        connections = total = 0
        while True:
            data = netlink.recv(1 << 16)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == NLMSG_DONE:
                    return connections, total
                if kind == NLMSG_ERROR:
                    raise Failed("sock_diag refused the request")
                received = _received(data[16:length], port)
                if received is not None:
                    connections += 1
                    total += received
                data = data[(length + 3) & ~3:]


def _received(message: bytes, port: int) -> int | None:
    """tcpi_bytes_received of one struct inet_diag_msg, if its local port is `port`."""
    if struct.unpack_from(">H", message, 4)[0] != port:
        return None
    at = 72  # the fixed part; attributes follow
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == INET_DIAG_INFO:
            return struct.unpack_from("=Q", message, at + 4 + BYTES_RECEIVED)[0]
        at += (length + 3) & ~3
    return 0


def require_lane(port: int, expect: str, seconds: float = 0.05) -> dict[str, int]:
    """Looks twice, `seconds` apart, at a server that is busy; fails if the bytes go another way."""
    connections, before = kernel_bytes_received(port)
    time.sleep(seconds)
    again, after = kernel_bytes_received(port)
    if connections == 0 or again == 0:
        raise Failed(f"no connection to port {port} could be seen while the programs ran")
    moved = after - before
    if expect == "ring" and moved > 0:
        raise Failed(f"{moved} bytes went through the kernel in {seconds} s over {again} connections: "
                     "not the ring lane")
    if expect == "kernel" and moved <= 0:
        raise Failed("no bytes went through the kernel: not the kernel lane")
    return {"connections": again, "kernel_bytes": after, "kernel_bytes_moved": moved}
