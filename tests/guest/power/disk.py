#!/usr/bin/env python3
"""Disks for a guest that remember in which order they were written.

usage: disk.py SOCKET LOG MARKS DISK=FILE…

An NBD server on a unix socket. Each DISK is an export that begins as FILE, whose content stays as it is. Every write and every
flush is appended to LOG before it is answered, so that what the disk held at any instant can be made again, also what it would hold
if the power had gone: after a flush was answered, all that was answered before is on the disk; of later writes any may be. MARKS names
one more export, a small disk of the guest's own notes: one written there has its place among the writes of the others. The
server says READY when it listens and ends by SIGTERM.
"""
import contextlib
import mmap
import os
import signal
import socket
import struct
import sys
import threading

WRITE, FLUSH, MARK = 0, 1, 2
ENTRY = struct.Struct("<BBIQ")  # kind, number of the disk, bytes that follow, offset

OPTION_MAGIC, REPLY_MAGIC, REQUEST_MAGIC, SIMPLE_MAGIC = 0x49484156454F5054, 0x3E889045565A9, 0x25609513, 0x67446698
OPT_ABORT, OPT_LIST, OPT_INFO, OPT_GO = 2, 3, 6, 7
REP_ACK, REP_INFO, REP_UNSUPPORTED, REP_UNKNOWN = 1, 3, (1 << 31) + 1, (1 << 31) + 6
HAS_FLAGS, SEND_FLUSH = 1, 4  # no FUA, no trim: the guest flushes instead, and writes zeros as they are
READ, WRITE_COMMAND, DISCONNECT, FLUSH_COMMAND = 0, 1, 2, 3
EINVAL = 22
MARKS_SIZE = 1 << 20


class Disks:
    """The exports, and the log that they share."""

    def __init__(self, log, marks, files):
        self.lock = threading.Lock()
        self.log = open(log, "wb", buffering=1 << 20)
        self.names = [*files, marks]
        self.marks = len(files)
        self.memory = []
        for file in files.values():
            with open(file, "rb") as f:
                self.memory.append(mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE))
        self.memory.append(mmap.mmap(-1, MARKS_SIZE))

    def add(self, kind, disk, offset=0, data=b""):
        self.log.write(ENTRY.pack(kind, disk, len(data), offset))
        self.log.write(data)

    def write(self, disk, offset, data):
        with self.lock:
            self.memory[disk][offset:offset + len(data)] = data
            if disk == self.marks:
                data = data.split(b"\0")[0].strip()
            self.add(MARK if disk == self.marks else WRITE, disk, offset, data)

    def flush(self, disk):
        with self.lock:
            if disk != self.marks:
                self.add(FLUSH, disk)


def receive(s, n):
    data = bytearray()
    while len(data) < n:
        got = s.recv(n - len(data))
        if not got:
            raise EOFError
        data += got
    return bytes(data)


def negotiate(s, disks):
    """Which export the client wants; None when it leaves."""
    s.sendall(b"NBDMAGIC" + struct.pack(">QH", OPTION_MAGIC, 1))
    receive(s, 4)
    while True:
        _, option, n = struct.unpack(">QII", receive(s, 16))
        data = receive(s, n)

        def reply(kind, body=b"", o=option):
            s.sendall(struct.pack(">QIII", REPLY_MAGIC, o, kind, len(body)) + body)

        if option == OPT_ABORT:
            reply(REP_ACK)
            return None
        if option not in (OPT_INFO, OPT_GO):
            reply(REP_UNSUPPORTED)
            continue
        name = data[4:4 + struct.unpack(">I", data[:4])[0]].decode()
        if name not in disks.names:
            reply(REP_UNKNOWN)
            continue
        disk = disks.names.index(name)
        reply(REP_INFO, struct.pack(">HQH", 0, len(disks.memory[disk]), HAS_FLAGS | SEND_FLUSH))
        reply(REP_ACK)
        if option == OPT_GO:
            return disk


def serve(s, disks):
    disk = negotiate(s, disks)
    while disk is not None:
        _, _, command, handle, offset, n = struct.unpack(">IHHQQI", receive(s, 28))
        error, body = 0, b""
        if command == WRITE_COMMAND:
            disks.write(disk, offset, receive(s, n))
        elif command == READ:
            body = disks.memory[disk][offset:offset + n]
        elif command == FLUSH_COMMAND:
            disks.flush(disk)
        elif command == DISCONNECT:
            return
        else:
            error = EINVAL
        s.sendall(struct.pack(">IIQ", SIMPLE_MAGIC, error, handle) + body)


def client(s, disks):
    with s, contextlib.suppress(EOFError, ConnectionError):
        serve(s, disks)


def main(path, log, marks, *files):
    disks = Disks(log, marks, dict(f.split("=", 1) for f in files))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("READY", flush=True)
    try:
        while True:
            threading.Thread(target=client, args=(listener.accept()[0], disks), daemon=True).start()
    finally:
        with disks.lock:
            disks.log.close()


def entries(log):
    """(kind, disk, offset, data) of a log, in their order."""
    with open(log, "rb") as f:
        while head := f.read(ENTRY.size):
            kind, disk, n, offset = ENTRY.unpack(head)
            yield kind, disk, offset, f.read(n)


if __name__ == "__main__":
    main(*sys.argv[1:])
