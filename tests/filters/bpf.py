"""Loading and attaching small programs through bpf(2), without a compiler: each lets every packet pass and
counts, in a map, packets and bytes."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 321)
MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, PROG_LOAD, PROG_ATTACH, PROG_DETACH, LINK_CREATE = 0, 1, 2, 5, 8, 9, 28
TYPE_SCHED_CLS, TYPE_XDP, TYPE_CGROUP_SKB, TYPE_SK_MSG = 3, 6, 8, 16
CGROUP_INGRESS, CGROUP_EGRESS, ATTACH_XDP, TCX_INGRESS = 0, 1, 37, 46
XDP_GENERIC = 2
LO = 1


def bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes.ljust(144, b"\0"))
    result = ctypes.CDLL(None, use_errno=True).syscall(SYS_BPF, command, buffer, len(buffer) - 1)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return result


def instruction(code: int, registers: int, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, registers, offset, value)


class Counter:
    """A program of one type, with its map of {packets, bytes}."""

    def __init__(self, kind: int) -> None:
        self.map = bpf(MAP_CREATE, struct.pack("<IIII", 2, 4, 16, 1))  # an array of one 16-byte value
        verdict = {TYPE_XDP: 2, TYPE_SCHED_CLS: 0, TYPE_CGROUP_SKB: 1}[kind]
        # XDP has no length: it is data_end - data.
        length = ([instruction(0x61, 0x61, 4), instruction(0x61, 0x63, 0), instruction(0x1f, 0x31)]
                  if kind == TYPE_XDP else [instruction(0x61, 0x61, 0)])
        body = [
            instruction(0xbf, 0x16),                  # r6 = r1, the packet
            instruction(0x62, 0x0a, -4, 0),           # key = 0
            instruction(0xbf, 0xa2),                  # r2 = &key
            instruction(0x07, 0x02, 0, -4),
            instruction(0x18, 0x11, 0, self.map),     # r1 = the map
            instruction(0x00, 0x00),
            instruction(0x85, 0x00, 0, 1),            # r0 = bpf_map_lookup_elem
            instruction(0x15, 0x00, 3 + len(length), 0),  # none: let it pass
            *length,                                  # r1 = bytes
            instruction(0xdb, 0x10, 8),               # add it
            instruction(0xb7, 0x01, 0, 1),
            instruction(0xdb, 0x10, 0),               # one packet
            instruction(0xb7, 0x00, 0, verdict),
            instruction(0x95, 0x00),
        ]
        code = ctypes.create_string_buffer(b"".join(body))
        licence = ctypes.create_string_buffer(b"GPL")
        self.program = bpf(PROG_LOAD, struct.pack("<IIQQIIQII16s", kind, len(body), ctypes.addressof(code),
                                                  ctypes.addressof(licence), 0, 0, 0, 0, 0, b"lf_test"))
        self.link = -1

    def read(self) -> tuple[int, int]:
        """Packets and bytes so far."""
        key = ctypes.create_string_buffer(4)
        value = ctypes.create_string_buffer(16)
        bpf(MAP_LOOKUP, struct.pack("<IIQQ", self.map, 0, ctypes.addressof(key), ctypes.addressof(value)))
        return struct.unpack("<QQ", value.raw[:16])

    def attach_cgroup(self, folder: str, attach_type: int) -> None:
        group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            bpf(PROG_ATTACH, struct.pack("<IIII", group, self.program, attach_type, 0))
        finally:
            os.close(group)

    def detach_cgroup(self, folder: str, attach_type: int) -> None:
        group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            bpf(PROG_DETACH, struct.pack("<IIII", group, self.program, attach_type, 0))
        finally:
            os.close(group)

    def attach_lo(self, attach_type: int, flags: int = 0) -> None:
        self.link = bpf(LINK_CREATE, struct.pack("<IIII", self.program, LO, attach_type, flags))

    def close(self) -> None:
        for descriptor in (self.link, self.program, self.map):
            if descriptor >= 0:
                os.close(descriptor)
        self.link = self.program = self.map = -1


def drop_what_is_sent(descriptor: int) -> None:
    """Puts a socket into a map (sockmap) whose program lets nothing be sent."""
    sockets = bpf(MAP_CREATE, struct.pack("<IIII", 15, 4, 4, 1))
    code = ctypes.create_string_buffer(instruction(0xb7, 0x00) + instruction(0x95, 0x00))  # return SK_DROP
    licence = ctypes.create_string_buffer(b"GPL")
    verdict = 7
    program = bpf(PROG_LOAD, struct.pack("<IIQQIIQII16sII", TYPE_SK_MSG, 2, ctypes.addressof(code), ctypes.addressof(licence),
                                         0, 0, 0, 0, 0, b"lf_test", 0, verdict))
    bpf(PROG_ATTACH, struct.pack("<IIII", sockets, program, verdict, 0))
    key, value = (ctypes.create_string_buffer(struct.pack("<I", number)) for number in (0, descriptor))
    bpf(MAP_UPDATE, struct.pack("<IIQQQ", sockets, 0, ctypes.addressof(key), ctypes.addressof(value), 0))
