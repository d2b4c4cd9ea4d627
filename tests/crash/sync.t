#!/usr/bin/env python3
"""A sync fails, and what was written since the last one is gone, as Linux does it (the pages are marked clean and dropped). The clients of
that batch are refused for now, nobody else saw anything of it, the segment is abandoned, and the store goes on in the next one without
a restart. What was acknowledged before and after is there, also after kill -9, and when the index is made again from the log.

The sync that fails is that of a frame, of a body in a file of its own, of the next segment too, and every one until the disk recovers.
"""
import os
import re
import smtplib
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from faults import FOREVER, SYNCS, Faults  # noqa: E402
from server import Server, binary  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402


class Watcher:
    """A client in IDLE: hears of what became visible, and of nothing else. It has the mailbox read-only: SELECT takes the messages'
    \\Recent, and that is written."""

    def __init__(self, server):
        self.client = mail.imap(server, "alice")
        self.have = int(self.client.select("INBOX", readonly=True)[1][0])
        self.client.send(b"w1 IDLE\r\n")
        while not self.client.readline().startswith(b"+"):
            pass

    def heard(self, until):
        """The numbers of EXISTS, up to this one."""
        numbers = []
        while not numbers or numbers[-1] < until:
            if m := re.match(rb"\* (\d+) EXISTS", self.client.readline()):
                numbers.append(int(m.group(1)))
        return numbers


def send(server, key, size=2000):
    """The reply's code."""
    try:
        mail.send(server, mail.message(key, size=size), server.mail("alice"))
        return 250
    except smtplib.SMTPResponseException as e:
        return e.smtp_code


def state(server):
    """{uid: (subject, flags)}"""
    client = mail.imap(server, "alice")
    found = {}
    if int(client.select("INBOX", readonly=True)[1][0]):
        for part in client.uid("FETCH", "1:*", "(FLAGS BODY.PEEK[])")[1]:
            if isinstance(part, tuple):
                uid = int(re.search(rb"UID (\d+)", part[0]).group(1))
                flags = re.search(rb"FLAGS \(([^)]*)\)", part[0]).group(1).decode().replace("\\Recent", "").split()
                found[uid] = re.search(rb"^Subject: (\S+)\r$", part[1], re.M).group(1).decode(), flags
    client.logout()
    return found


def deliveries(s, faults):
    cases = (("the sync of a frame", 2000, 1, 1), ("of a body's own file", 1200000, 1, 1),
             ("of a frame, and of the next segment's header", 2000, 1, 2), ("of a frame, and of the folder of segments", 2000, 1, 3))
    for what, size, first, count in cases:
        before, watcher = state(s), Watcher(s)
        faults.arm("store", SYNCS, "LOSE", first, count)
        code = send(s, "lost", size)
        _, failed, _ = faults.disarm()
        eq((code, failed >= 1), (451, True), f"{what}: the message is refused with 451")
        eq(state(s), before, f"{what}: nothing of it is there")
        key = f"after-{len(before)}"
        eq(send(s, key), 250, f"{what}: the next one is taken, without a restart")
        eq(watcher.heard(len(before) + 1), [len(before) + 1], f"{what}: one in IDLE hears of the next one, and of no other")
        watcher.client.shutdown()
        after = state(s)
        eq([m for u, m in after.items() if u not in before], [(key, [])], f"{what}: and it is there")


def commands(s, faults):
    client = mail.imap(s, "alice")
    client.select("INBOX")
    uids = sorted(state(s))
    client.uid("STORE", str(uids[0]), "+FLAGS", "(\\Deleted)")
    for what, act in (("APPEND", lambda: client.append("INBOX", None, None, mail.message("lost"))),
                      ("STORE", lambda: client.uid("STORE", str(uids[1]), "+FLAGS", "(\\Flagged)")),
                      ("COPY", lambda: client.uid("COPY", str(uids[1]), "INBOX")),
                      ("EXPUNGE", client.expunge), ("CREATE", lambda: client.create("Lost"))):
        before = state(s)
        faults.arm("store", SYNCS, "LOSE")
        status, answer = act()
        eq((status, faults.disarm()[1]), ("NO", 1), f"{what}: its sync fails: {answer[-1]}")
        eq(state(s), before, f"{what}: nothing has happened")
        eq(act()[0], "OK", f"{what}: once more, and it is done")
        ok(what == "CREATE" or state(s) != before, f"{what}: it has happened")
    client.logout()


def disk_gone(s, faults):
    before = state(s)
    faults.arm("store", SYNCS, "LOSE", count=FOREVER)
    eq([send(s, f"never-{i}") for i in range(5)], [451] * 5, "no sync succeeds: everything is refused")
    eq(state(s), before, "... and what is there is read")
    faults.disarm()
    eq(send(s, "again"), 250, "syncs succeed again: mail is taken, without a restart")
    eq(len(state(s)), len(before) + 1, "... and is there")


def built_with(program, what):
    with open(program, "rb") as f:
        return what in f.read()


def main():
    release = os.environ.get("POSTHORN_RELEASE") or os.path.join(TOP, "posthorn")
    eq((built_with(binary(), b"POSTHORN_FAULTS"), built_with(release, b"POSTHORN_FAULTS")), (True, False),
       "the server that is tested can be made to fail, the one that is installed cannot")
    faults = Faults()
    with Server() as s:
        eq([send(s, f"first-{i}") for i in range(3)], [250] * 3, "messages go in")
        deliveries(s, faults)
        commands(s, faults)
        disk_gone(s, faults)
        pid = dict(s.roles())["store"]
        before = state(s)
        ok("store-segment-abandoned" in s.log(), "the log says that segments were abandoned")
        eq(f"pid={pid} " in "".join(re.findall("role-ready role=store.*", s.log())[:1]), True, "the store was never restarted")
        s.kill()
        s.start()
        eq(state(s), before, "after kill -9 everything is as it was")
        s.stop()
        os.unlink(os.path.join(s.folder, "data/store/index/data.mdb"))
        s.start()
        eq(state(s), before, "with the index made again from the log too")
        eq(re.findall("store-damaged.*", s.log()), [], "no segment counts as damaged")
        if not ok(not s.crashes(), "nothing crashed"):
            note("\n".join(s.crashes()))
    faults.close()
    done()


main()
