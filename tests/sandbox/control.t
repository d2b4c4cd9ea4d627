#!/usr/bin/env python3
"""The control socket: a command whose tool leaves before the answer, rubbish, and too much; the server goes on."""
import os
import smtplib
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import tap  # noqa: E402
from server import Server  # noqa: E402

MSG_COMMAND = 30
MANY = 300


def command(*args):
    """The datagram of messages.def's `command`."""
    text = b"".join(a.encode() + b"\0" for a in args)
    return (MSG_COMMAND.to_bytes(2, "little") + bytes(2) + (1).to_bytes(4, "little") + len(text).to_bytes(4, "little") + text +
            bytes(4) + bytes(8))


def connect(server):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(os.path.join(server.folder, "data/control"))
    s.settimeout(30)
    return s


def main():
    with Server(accounts=["alice"]) as server:
        before = server.roles()
        with connect(server) as s:
            s.send(command("status", "--json"))
            tap.ok(b"uptime" in s.recv(65536), "a command is answered")
        for what in (["status"], ["roles"], ["user", "list"], ["queue", "list"], ["trace", "alice@example.test"]):
            for _ in range(5):
                with connect(server) as s:
                    s.send(command(*what))
        tap.eq(server.roles(), before, "tools that leave before the answer end nothing")
        for rubbish in (b"x", b"\xff" * 8, command("status")[:-1], command("status") + b"x", bytes(8), b"\x4a" + bytes(60)):
            with connect(server) as s:
                s.send(rubbish)
                tap.eq(s.recv(65536), b"", f"rubbish is cut off: {rubbish[:12]!r}")
        tap.eq(server.roles(), before, "and ends nothing either")
        with smtplib.SMTP("127.0.0.1", server.port("smtp"), timeout=60) as s:
            for n in range(MANY):
                s.sendmail("x@example.org", [server.mail("alice")], f"Subject: {n}\r\n\r\n{n}\r\n")
        status, out = server.command("trace", server.mail("alice"), "--limit", str(MANY))
        tap.eq((status, out.count(b"\nmessage ") + out.startswith(b"message ")), (0, MANY), "an address with many messages is traced")
        for wrong in (["--limit"], ["--limit", "0"], ["--limit", "2001"], ["--limit", "x"], ["--newest"], [server.mail("bob")]):
            tap.eq(server.command("trace", server.mail("alice"), *wrong)[0], 2, f"wrong arguments: {wrong}")
        many = [connect(server) for _ in range(200)]
        for s in many:
            s.close()
        tap.eq(server.roles(), before, "more tools than are taken")
        tap.eq(server.crashes(), [], "nothing crashed")
    tap.done()


main()
