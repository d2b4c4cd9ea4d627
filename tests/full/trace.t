#!/usr/bin/env python3
"""`posthorn trace` among a million messages, by id and by address: the figures, and that it answers from its index. What admin reads
for an answer is counted by the kernel (/proc/PID/io), and stays far below what the history takes on disk. Of an address with thousands
of messages the newest are told, and that there are more.

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
SENDERS, RECIPIENTS = 50000, 200  # of trace-fill.c
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


def figures(name, seconds):
    seconds.sort()
    note(f"{len(seconds)} {name}: p50 {seconds[len(seconds) // 2] * 1000:.1f} ms, max {seconds[-1] * 1000:.1f} ms")


def asked(s, ids, size):
    figures("ids", [ask(s, i, f"message {i}", size) for i in ids])
    addresses = [(f"sender{n * SENDERS // 10}@example.org", "message ") for n in range(10)]
    addresses += [(f"user{n * RECIPIENTS // 10}@example.test", "message ") for n in range(10)]
    figures("addresses", [ask(s, address, wanted, size) for address, wanted in addresses])
    ask(s, "sender0@example.org", ids[0], size)
    newest(s, f"user{RECIPIENTS - 1}@example.test", ids[-1])
    mail.send(s, mail.message("after"), s.mail("alice"), sender="new@example.org")
    ask(s, "new@example.org", "taken from <new@example.org>", size)
    eq(s.command("trace", "nobody@example.org")[0], 1, "of an address that never was, nothing is known")


def newest(s, address, last):
    """It has a message of each RECIPIENTS, of two events each."""
    for limit, args in ((50, []), (7, ["--limit", "7"])):
        status, out = s.command("trace", address, *args)
        told = [line.split()[1] for line in out.decode().splitlines() if line.startswith("message ")]
        eq((status, len(told), told[-1]), (0, limit, last), f"{address}: the newest {limit}")
        ok(f"about {2 * (MESSAGES // RECIPIENTS - limit)} older events".encode() in out, "... and how much more there is")


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
