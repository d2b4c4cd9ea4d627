"""System calls of the server that fail: arms tests/os_fault.c, which the asan build of posthorn is linked with.

    faults = Faults()                    # before the server is started: its processes map the page
    with Server(...) as s:
        faults.arm("store", WRITES | SYNCS, "EIO", first=3)
        ...                              # the third write or sync of role store fails
        calls, failed, name = faults.disarm()
"""
import errno
import mmap
import os
import struct
import tempfile

NAMES, READS, WRITES, SYNCS, DESCRIPTORS, RECEIVES, SENDS, WAITS = (1 << i for i in range(8))
ERRORS = {"SHORT": -1, "LOSE": -2}
FOREVER = 0xffffffff
# struct fault_page of tests/os_fault.c
ROLE, RULE, COUNTS, DIRTY = struct.Struct("=16s"), struct.Struct("=IiII"), struct.Struct("=II16s"), struct.Struct("=I")
AT_RULE, AT_COUNTS, AT_DIRTY, SIZE = 16, 32, 56, 64 + 1024 * 24


class Faults:
    def __init__(self):
        fd, self.path = tempfile.mkstemp(prefix="posthorn-faults-")
        os.ftruncate(fd, SIZE)
        os.chmod(self.path, 0o666)  # each role is a user of its own
        self.page = mmap.mmap(fd, SIZE)
        os.close(fd)
        os.environ["POSTHORN_FAULTS"] = self.path

    def close(self):
        del os.environ["POSTHORN_FAULTS"]
        os.unlink(self.path)

    def arm(self, role, kinds, error, first=1, count=1):
        """From now on call number `first` of these kinds fails, and those behind it if `count` is more."""
        RULE.pack_into(self.page, AT_RULE, kinds, ERRORS.get(error) or getattr(errno, error), first, count)
        COUNTS.pack_into(self.page, AT_COUNTS, 0, 0, b"")
        DIRTY.pack_into(self.page, AT_DIRTY, 0)
        ROLE.pack_into(self.page, 0, role.encode())

    def disarm(self):
        """(calls counted, how many failed, the last of them)"""
        ROLE.pack_into(self.page, 0, b"")
        return self.look()

    def look(self):
        calls, failed, name = COUNTS.unpack_from(self.page, AT_COUNTS)
        return calls, failed, name.rstrip(b"\0").decode()
