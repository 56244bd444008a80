"""A file system of one folder in memory. `python -m tests.peers.plain_fs FOLDER` mounts it.

It speaks FUSE's protocol with the kernel (`struct fuse_*` in linux/fuse.h). It has no hard links, locks,
unnamed files or modes, and refuses to sync a folder, as exFAT, SMB and mounted buckets do in part.
"""

import ctypes
import os
import stat
import struct
import sys
import time
from dataclasses import dataclass, field
from errno import EEXIST, EINVAL, ENOENT, ENOSYS, EOPNOTSUPP, EPERM
from typing import Any

LOOKUP, FORGET, GETATTR, SETATTR, UNLINK, RENAME, LINK, OPEN, READ, WRITE = 1, 2, 3, 4, 10, 12, 13, 14, 15, 16
STATFS, RELEASE, FSYNC, INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR = 17, 18, 20, 26, 27, 28, 29, 30
GETLK, SETLK, SETLKW, CREATE, INTERRUPT, DESTROY, BATCH_FORGET, RENAME2, TMPFILE = (
    31,
    32,
    33,
    35,
    36,
    38,
    42,
    45,
    51,
)

REFUSED = {
    LINK: EPERM,
    SETLK: EOPNOTSUPP,
    SETLKW: EOPNOTSUPP,
    GETLK: EOPNOTSUPP,
    FSYNCDIR: EINVAL,
    FSYNC: EOPNOTSUPP,
    TMPFILE: EOPNOTSUPP,
}
SILENT = {FORGET, BATCH_FORGET, INTERRUPT}
FLOCK_LOCKS = 1 << 10  # ask for each flock, rather than keep locks in the kernel
MAX_WRITE = 1 << 17
ROOT = 1


@dataclass
class Node:
    """A file, or the folder."""

    number: int
    mode: int = stat.S_IFREG | 0o666
    data: bytearray = field(default_factory=bytearray)
    changed: int = field(default_factory=time.time_ns)

    def attributes(self) -> bytes:
        seconds, rest = divmod(self.changed, 10**9)
        times = (seconds,) * 3 + (rest,) * 3
        size = len(self.data)
        owner = (os.getuid(), os.getgid())
        return struct.pack(
            "<3Q3Q3I7I", self.number, size, -(-size // 512), *times, self.mode, 1, *owner, 0, 4096, 0
        )


class RefusedError(Exception):
    """The answer is an error, of this number."""


class Folder:
    """The only folder, and its answers to the kernel."""

    def __init__(self) -> None:
        self.nodes = {ROOT: Node(ROOT, stat.S_IFDIR | 0o777)}
        self.names: dict[str, Node] = {}

    def answer(self, kind: int, number: int, body: bytes) -> bytes:
        if kind in REFUSED:
            raise RefusedError(REFUSED[kind])
        node = self.nodes[number] if number else self.nodes[ROOT]
        handler: Any = getattr(self, HANDLERS.get(kind, ""), None)
        if handler is None:
            raise RefusedError(ENOSYS)
        result: bytes = handler(node, body)
        return result

    def init(self, node: Node, body: bytes) -> bytes:
        return struct.pack("<4I2H2I2H8I", 7, 31, 1 << 17, FLOCK_LOCKS, 16, 12, MAX_WRITE, 1, 0, 0, *[0] * 8)

    def nothing(self, node: Node, body: bytes) -> bytes:
        return b""

    def entry(self, node: Node) -> bytes:
        return struct.pack("<4Q2I", node.number, 0, 0, 0, 0, 0) + node.attributes()

    def find(self, name: bytes) -> Node:
        if (node := self.names.get(name.decode())) is None:
            raise RefusedError(ENOENT)
        return node

    def lookup(self, node: Node, body: bytes) -> bytes:
        return self.entry(self.find(body.rstrip(b"\0")))

    def getattr(self, node: Node, body: bytes = b"") -> bytes:
        return struct.pack("<Q2I", 0, 0, 0) + node.attributes()

    def setattr(self, node: Node, body: bytes) -> bytes:
        valid, _, _, size = struct.unpack_from("<2I2Q", body)
        if valid & 1:  # the mode
            raise RefusedError(EPERM)
        if valid & 8:
            del node.data[size:]
            node.data.extend(bytes(size - len(node.data)))
            node.changed = time.time_ns()
        return self.getattr(node)

    def create(self, node: Node, body: bytes) -> bytes:
        flags, name = struct.unpack_from("<I", body)[0], body[16:].rstrip(b"\0").decode()
        if name in self.names and flags & os.O_EXCL:
            raise RefusedError(EEXIST)
        new = self.names.setdefault(name, Node(len(self.nodes) + 1))
        self.nodes[new.number] = new
        return self.entry(new) + self.open(new)

    def open(self, node: Node, body: bytes = b"") -> bytes:
        return struct.pack("<Q2I", 0, 0, 0)

    def read(self, node: Node, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<2QI", body)
        return bytes(node.data[offset : offset + size])

    def write(self, node: Node, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<2QI", body)
        node.data.extend(bytes(max(offset - len(node.data), 0)))
        node.data[offset : offset + size] = body[40 : 40 + size]
        node.changed = time.time_ns()
        return struct.pack("<2I", size, 0)

    def unlink(self, node: Node, body: bytes) -> bytes:
        self.find(body.rstrip(b"\0"))
        del self.names[body.rstrip(b"\0").decode()]
        return b""

    def rename(self, node: Node, body: bytes, start: int = 8) -> bytes:
        old, new = body[start:].rstrip(b"\0").split(b"\0")
        moved = self.find(old)
        del self.names[old.decode()]
        self.names[new.decode()] = moved
        return b""

    def rename2(self, node: Node, body: bytes) -> bytes:
        return self.rename(node, body, 16)

    def readdir(self, node: Node, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<2QI", body)
        listed = b""
        for index, (name, child) in enumerate(list(self.names.items())[offset:], offset + 1):
            raw = name.encode()
            listed += struct.pack("<2Q2I", child.number, index, len(raw), stat.S_IFREG >> 12) + raw
            listed += bytes(-len(listed) % 8)
        return listed[:size] if len(listed) <= size else b""

    def statfs(self, node: Node, body: bytes) -> bytes:
        return struct.pack("<5Q4I6I", *[1 << 20] * 5, 4096, 255, 4096, 0, *[0] * 6)


HANDLERS = {
    INIT: "init",
    LOOKUP: "lookup",
    GETATTR: "getattr",
    SETATTR: "setattr",
    CREATE: "create",
    OPEN: "open",
    READ: "read",
    WRITE: "write",
    UNLINK: "unlink",
    RENAME: "rename",
    RENAME2: "rename2",
    OPENDIR: "open",
    READDIR: "readdir",
    STATFS: "statfs",
    **dict.fromkeys((RELEASE, RELEASEDIR, DESTROY), "nothing"),
}


def serve(target: str) -> None:
    """Mount the file system at a folder, say `mounted`, and answer until it is unmounted.

    Raises:
        OSError: this process may not mount.
    """
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"plain", target.encode(), b"fuse", 0, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)
    print("mounted", flush=True)
    folder = Folder()
    while True:
        try:
            request = os.read(device, MAX_WRITE + 4096)
        except OSError:
            return
        _, kind, unique, number = struct.unpack_from("<2I2Q", request)
        if kind in SILENT:
            continue
        try:
            body, error = folder.answer(kind, number, request[40:]), 0
        except RefusedError as refusal:
            body, error = b"", -refusal.args[0]
        os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)


if __name__ == "__main__":
    serve(sys.argv[1])
