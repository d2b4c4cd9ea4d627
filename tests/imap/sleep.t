#!/usr/bin/env python3
"""Connections that sleep: given back to the zygote, their process gone, woken by mail, by input, by a new login, by the store's
restart; ended by the deadline; and what an idle one costs. The server runs with test hooks, which shorten the wait to a second."""
import os
import re
import select
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import mailtools as mail  # noqa: E402
from server import Server  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402


class Client:
    """A few lines of IMAP over a plain socket."""

    def __init__(self, server, user, mailbox="INBOX"):
        self.socket = socket.create_connection(("127.0.0.1", server.port("imap")), timeout=30)
        self.file, self.tag = self.socket.makefile("rb"), 0
        self.line()
        self.do(f'LOGIN "{server.mail(user)}" "{server.password(user)}"')
        if mailbox:
            self.do(f"SELECT {mailbox}")

    def close(self):
        self.file.close()
        self.socket.close()

    def line(self):
        return self.file.readline().decode().rstrip("\r\n")

    def send(self, text):
        self.socket.sendall(text.encode() + b"\r\n")

    def do(self, text):
        """All lines of the answer; the last is the tagged one, without its tag."""
        self.tag += 1
        self.send(f"a{self.tag} {text}")
        return self.rest()

    def rest(self):
        lines = []
        while True:
            line = self.line()
            if line.startswith(f"a{self.tag} ") or not line:
                return lines + [line[len(f"a{self.tag} "):]]
            lines.append(line)

    def idle(self):
        self.tag += 1
        self.send(f"a{self.tag} IDLE")
        while not self.line().startswith("+"):
            pass

    def done(self):
        self.send("DONE")
        return self.rest()

    def is_quiet(self):
        return not select.select([self.socket], [], [], 0)[0]


def figures(server):
    """(processes, connections that sleep) of role session."""
    text = server.command_good("status", "--json")
    m = re.search(r'"processes":(\d+),"parked":(\d+)', text)
    return int(m.group(1)), int(m.group(2))


def wait_for(server, what):
    """Until the session's figures are these. Their change is no event that a client could await."""
    until = time.monotonic() + 30
    while figures(server) != what and time.monotonic() < until:
        select.select([], [], [], 0.05)
    return figures(server)


def pid_of(server, role):
    return dict(server.roles())[role]


def filters(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        return int(re.search(r"^Seccomp_filters:\s+(\d+)", f.read(), re.M).group(1))


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return [int(x) for x in f.read().split()]


def wakes(s):
    idle, other = Client(s, "alice"), Client(s, "alice")
    zygote = pid_of(s, "session")
    eq([filters(p) - filters(zygote) for p in children(zygote)], [1], "the account's process has one filter more than the zygote")
    idle.idle()
    eq(wait_for(s, (0, 2)), (0, 2), "two idle connections sleep, and no process is left")

    began = time.monotonic()
    mail.send(s, mail.message("one"), s.mail("alice"))
    eq(idle.line(), "* 1 EXISTS", "mail arrives: the one in IDLE hears of it")
    note(f"{(time.monotonic() - began) * 1000:.1f} ms from the beginning of the SMTP session")
    idle.line()  # RECENT
    eq(other.do("NOOP")[0], "* 1 EXISTS", "the other one hears of it with its next command")
    ok(idle.done()[-1].startswith("OK"), "DONE, with the tag from before the sleep")
    eq(wait_for(s, (0, 2)), (0, 2), "both sleep again")

    eq(other.do("STORE 1 +FLAGS (\\Deleted work)")[-1][:2], "OK", "input wakes: STORE")
    other.do("EXPUNGE")
    lines = idle.do("NOOP")
    ok("* 1 EXPUNGE" in lines and lines[-1].startswith("OK"), f"the other one hears of the EXPUNGE: {lines}")
    eq(wait_for(s, (0, 2)), (0, 2), "both sleep again")

    third = Client(s, "alice")
    ok(figures(s)[1] == 2, "a new login wakes nobody")
    mail.send(s, mail.message("two"), s.mail("alice"))
    third.do("SELECT INBOX")
    third.do("STORE 1:* +FLAGS.SILENT (\\Deleted)")
    third.do("EXPUNGE")
    mail.send(s, mail.message("three"), s.mail("alice"))
    lines = other.do("NOOP") + other.do("UID FETCH 1:* (UID)")
    ok("* 1 FETCH (UID 3)" in lines, f"one that slept through arrival, expunge and arrival sees what is there: {lines}")
    eq([line for line in lines if "EXISTS" in line or "EXPUNGE" in line], ["* 1 EXISTS"], "... and nothing of what came and went")
    for client in (idle, other, third):
        eq(client.do("LOGOUT")[0][:5], "* BYE", "LOGOUT")
    wait_for(s, (0, 0))


def pipelined(s):
    one = Client(s, "alice")
    wait_for(s, (0, 1))
    one.socket.sendall(b"x1 NOOP\r\nx2 UID SEARCH ALL\r\nx3 LOG")
    lines = [one.line() for _ in range(3)]
    ok(lines[0].startswith("x1 OK") and lines[1] == "* SEARCH 3" and lines[2].startswith("x2 OK"), f"pipelined into a sleep: {lines}")
    one.socket.sendall(b"OUT\r\n")
    eq(one.line()[:5], "* BYE", "... a line in two pieces")
    eq(wait_for(s, (0, 0)), (0, 0), "nothing is left of it")
    many = [Client(s, "alice") for _ in range(20)]
    for c in many:
        c.idle()
    eq(wait_for(s, (0, 20)), (0, 20), "twenty in IDLE sleep")
    mail.send(s, mail.message("all"), s.mail("alice"))
    eq([c.line() for c in many], ["* 2 EXISTS"] * 20, "all hear of mail")
    for c in many:
        c.close()
    eq(wait_for(s, (0, 0)), (0, 0), "clients that go away leave nothing")
    gone = [Client(s, "alice") for _ in range(3)]
    wait_for(s, (0, 3))
    for c in gone:
        c.close()
    eq(wait_for(s, (0, 0)), (0, 0), "nor do those that go away asleep")


def restarts(s):
    one, other = Client(s, "bob"), Client(s, "bob")
    one.idle()
    wait_for(s, (0, 2))
    os.kill(pid_of(s, "store"), signal.SIGKILL)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            mail.send(s, mail.message("after the restart"), s.mail("bob"))
            break
        except Exception as e:  # 451 while the store is away
            note(str(e))
            select.select([], [], [], 0.1)
    eq(one.line(), "* 1 EXISTS", "the store is restarted: one that slept in IDLE hears of mail")
    eq(other.do("NOOP")[0], "* 1 EXISTS", "the other one works on")
    wait_for(s, (0, 2))
    os.kill(pid_of(s, "auth"), signal.SIGKILL)
    wait_for(s, (0, 2))
    other.send("b1 NOOP")
    ok(other.line().startswith("* BYE"), "auth was restarted: it knows of no login, and the connection is ended with BYE")
    one.close()
    other.close()
    again = Client(s, "bob")
    ok(again.do("NOOP")[-1].startswith("OK"), "a login opens the account again")
    s.command_good("user", "disable", s.mail("bob"))
    wait_for(s, (0, 1))
    again.send("b1 NOOP")
    ok(again.line().startswith("* BYE"), "an account that was disabled meanwhile is not opened again")
    s.command_good("user", "enable", s.mail("bob"))


def pss(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
            total += int(re.search(r"^Pss: +(\d+)", f.read(), re.M).group(1))
    return total


def memory(s):
    """500 connections of 50 accounts. /proc of other users is root's alone."""
    wait_for(s, (0, 0))
    pids = [pid for _, pid in s.roles()]
    before = pss(pids) if os.getuid() == 0 else 0
    clients = [Client(s, f"user{i % 50}") for i in range(500)]
    for c in clients:
        c.idle()
    eq(wait_for(s, (0, 500)), (0, 500), "500 connections of 50 accounts sleep, without a process")
    if os.getuid() == 0:
        note(f"{(pss(pids) - before) * 1024 // 500} bytes for each (PSS of all roles)")
    mail.send(s, mail.message("to one"), s.mail("user7"))
    eq([c.line() for c in clients[7::50]], ["* 1 EXISTS"] * 10, "mail for one account wakes its ten")
    ok(all(c.is_quiet() for i, c in enumerate(clients) if i % 50 != 7), "... and nobody else")
    for c in clients:
        c.close()
    wait_for(s, (0, 0))


def deadline():
    with Server(accounts=["alice"], config=["disable_plaintext_auth = no", "imap_idle_timeout = 3s"]) as s:
        one = Client(s, "alice")
        one.idle()
        eq(wait_for(s, (0, 1)), (0, 1), "one sleeps")
        eq(one.line()[:5], "* BYE", "the deadline comes in its sleep")
        eq(one.line(), "", "... and the connection ends")
        eq(wait_for(s, (0, 0)), (0, 0), "nothing is left")


def main():
    os.environ["POSTHORN_TEST_HOOKS"] = "1"
    with Server(accounts=["alice", "bob"] + [f"user{i}" for i in range(50)],
                config=["disable_plaintext_auth = no", "mail_max_userip_connections = 1000"]) as s:
        wakes(s)
        pipelined(s)
        memory(s)
        restarts(s)
        eq([line for line in s.crashes() if "store.0" not in line and "auth.0" not in line and "role=store" not in line and
            "role=auth" not in line], [], "nothing crashed but what was killed")
    deadline()
    done()


main()
