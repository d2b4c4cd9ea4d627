#!/usr/bin/env python3
"""The posthorn command and an admin that does not answer: who waits is told, a question that went down with admin is asked again of
the next one, and a command that changes something is not."""
import os
import signal
import subprocess
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
from server import Server  # noqa: E402
from tap import done, eq, ok  # noqa: E402

PATIENCE = 60


def ask(server, *args):
    return subprocess.Popen([server.binary, "--dir", server.folder, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def sockets(pid):
    return sum(1 for fd in os.listdir(f"/proc/{pid}/fd") if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:"))


def late(s, admin):
    os.kill(admin, signal.SIGSTOP)
    command = ask(s, "trace", "nobody@example.test")
    line = command.stderr.readline()
    ok("no answer yet from role admin" in line, f"an admin that stands still: who waits is told ({line.strip()})")
    os.kill(admin, signal.SIGCONT)
    out, err = command.communicate(timeout=PATIENCE)
    eq((command.returncode, out, "nothing is known" in err), (1, "", True), "... and answered when it goes on")


def taken_along(s, *args):
    """The command, whose admin is killed after it had accepted it: role queue stands still, so that it has no answer yet."""
    roles = dict(s.roles())
    os.kill(roles["queue"], signal.SIGSTOP)
    before = sockets(roles["admin"])
    command = ask(s, *args)
    until = time.monotonic() + PATIENCE
    while sockets(roles["admin"]) == before and command.poll() is None and time.monotonic() < until:
        threading.Event().wait(0.01)
    os.kill(roles["admin"], signal.SIGKILL)
    os.kill(roles["queue"], signal.SIGCONT)
    out, err = command.communicate(timeout=PATIENCE)
    return command.returncode, out, err


def main():
    with Server() as s:
        late(s, dict(s.roles())["admin"])
        eq(taken_along(s, "queue", "list"), (0, "The queue is empty.\n", ""), "a question that admin took along is asked again")
        status, out, err = taken_along(s, "queue", "flush")
        eq((status, out, "the server did not answer" in err), (1, "", True), "what changes something is not")
        eq(s.command("queue", "list")[0], 0, "the server goes on")
        eq([line for line in s.crashes() if "role=admin.0" not in line], [], "nothing else ended")
    done()


main()
