#!/usr/bin/env python3
"""`posthorn trace` among a million messages, by id and by address: the figures, and that it answers from its index. What admin reads
for an answer is counted by the kernel (/proc/PID/io), and stays far below what the history takes on disk.

TRACE_MESSAGES: how many (1000000).
"""
import os
import pathlib
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server, binary  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

MESSAGES = int(os.environ.get("TRACE_MESSAGES", "1000000"))
SECONDS = 5.0  # a bound on what must not happen; the goal is 0.1 and is printed
SHARE = 20  # of the history's bytes, the most that an answer may read


def filler():
    """Built where the server was."""
    program = pathlib.Path(os.environ.get("POSTHORN_RELEASE") or binary()).resolve().parent
    subprocess.run(["make", "-C", TOP, f"BUILD={program.parent}", f"VARIANT={program.name}", f"{program}/tests/trace-fill"], check=True,
                   capture_output=True)
    return f"{program}/tests/trace-fill", str(program / "posthorn")


def read_so_far(server):
    pid = dict(server.roles())["admin"]
    with open(f"/proc/{pid}/io", encoding="ascii") as f:
        return dict(line.split(": ") for line in f.read().splitlines())["rchar"]


def ask(server, what, wanted, size):
    before, began = int(read_so_far(server)), time.monotonic()
    status, out = server.command("trace", what)
    took = time.monotonic() - began
    read = int(read_so_far(server)) - before
    ok(status == 0 and wanted.encode() in out, f"{what}: it is told ({len(out)} bytes)")
    note(f"{what}: {took * 1000:.1f} ms with the command's own start, {read} bytes read of {size}")
    ok(took < SECONDS and read * SHARE < size, f"{what}: from the index")
    return took


def asked(s, ids, size):
    for i in ids:
        ask(s, i, f"message {i}", size)
    ask(s, "sender0@example.org", ids[0], size)
    ask(s, "user199@example.test", ids[2], size)
    mail.send(s, mail.message("after"), s.mail("alice"), sender="new@example.org")
    ask(s, "new@example.org", "taken from <new@example.org>", size)
    eq(s.command("trace", "nobody@example.org")[0], 1, "of an address that never was, nothing is known")


def main():
    fill, program = filler()
    s = Server(program=program, config=["log_level = info"])
    folder = os.path.join(s.folder, "data/trace")
    with s:
        s.stop()  # the folder is there now, and belongs to whom it shall
        ids = subprocess.run([fill, folder, str(MESSAGES)], check=True, capture_output=True, text=True).stdout.split()
        owner = os.stat(folder)
        for name in os.listdir(folder):
            os.chown(os.path.join(folder, name), owner.st_uid, owner.st_gid)
        size = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))
        note(f"{MESSAGES} messages, {size} bytes, {len(os.listdir(folder))} files")
        s.start()
        asked(s, ids, size)
    done()


main()
