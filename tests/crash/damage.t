#!/usr/bin/env python3
"""Files of the store lost or spoilt, on the real server: its identity, its index, a segment, at rest and while it runs. The log names
the file, and the mail is there: all of it, or, where a segment itself was spoilt, all the rest.
"""
import os
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

MESSAGES = 20


def path(server, name):
    return os.path.join(server.folder, "data/store", name)


def flip(file, places):
    with open(file, "r+b") as f:
        for at in places:
            f.seek(at)
            byte = f.read(1)
            f.seek(at)
            f.write(bytes([byte[0] ^ 0x5a]))


def subjects(server):
    found = mail.fetch_all(server, "alice")
    return sorted(int(mail.re.search(rb"^Subject: (\d+)\r$", data, mail.re.M).group(1)) for data in found.values())


def eventually(act):
    """While the store ends and begins anew, a client is told to try again."""
    until = time.monotonic() + 60
    while True:
        try:
            return act()
        except (OSError, RuntimeError, mail.smtplib.SMTPException, mail.imaplib.IMAP4.error, AttributeError):
            if time.monotonic() > until:
                raise
            threading.Event().wait(0.2)


def said(server, since, *words):
    return any(all(w in line for w in words) for line in server.log()[since:].split("\n"))


def at_rest(server, what, spoil, words, wanted):
    server.stop()
    spoil()
    since = len(server.log())
    server.start()
    server.since = since
    eq(eventually(lambda: subjects(server)), wanted, f"{what}: the mail is there")
    if not ok(said(server, since, *words), f"{what}: the log says {' '.join(words)}"):
        note(server.log()[since:])


def values_of(file):
    """Where values and keys lie in the pages of an index: names that are in them."""
    with open(file, "rb") as f:
        data = f.read()
    return [m.start() for m in mail.re.finditer(b"INBOX|Drafts", data)]


def frames_of(file):
    with open(file, "rb") as f:
        data = f.read()
    return [at for at in range(4096, len(data), 4096) if data[at:at + 4] == b"PHFR"]


def main():
    with Server() as s:
        everything = list(range(MESSAGES))
        for i in everything:
            mail.send(s, mail.message(str(i)), s.mail("alice"))
        eq(subjects(s), everything, "mail goes in")
        index, segment = path(s, "index/data.mdb"), path(s, "log/00000001.seg")
        at_rest(s, "identity removed", lambda: os.unlink(path(s, "identity")), ("store-identity-damaged", "file=identity"), everything)
        at_rest(s, "its copy spoilt", lambda: flip(path(s, "log/identity"), [40]), ("store-identity-damaged", "file=log/identity"),
                everything)
        at_rest(s, "both gone", lambda: (os.unlink(path(s, "identity")), os.unlink(path(s, "log/identity"))),
                ("store-identity-damaged", "file=log/identity"), everything)
        at_rest(s, "index removed", lambda: os.unlink(index), ("store-recovered", "damages=0"), everything)
        at_rest(s, "index emptied", lambda: os.truncate(index, 0), ("store-recovered", "damages=0"), everything)
        at_rest(s, "index cut", lambda: os.truncate(index, 12288), ("store-index-damaged", "file=index/data.mdb"), everything)
        at_rest(s, "index overwritten", lambda: flip(index, range(0, os.path.getsize(index), 7)),
                ("store-index-damaged", "file=index/data.mdb"), everything)
        at_rest(s, "values in the index spoilt", lambda: flip(index, values_of(index)),
                ("store-index-damaged", "file=index/data.mdb"), everything)

        def checkpointed():
            if not said(s, s.since, "store-checkpoint position"):
                raise RuntimeError("no checkpoint yet")
            return True

        # Until then everything is in the store's memory.
        ok(eventually(checkpointed) and bool(values_of(index)), "there is something to spoil")
        since = len(s.log())
        flip(index, values_of(index))
        eventually(lambda: mail.send(s, mail.message(str(MESSAGES)), s.mail("alice")))
        everything.append(MESSAGES)
        eq(eventually(lambda: subjects(s)), everything, "index spoilt while it runs: mail goes in, and all of it is there")
        ok(said(s, since, "store-index-damaged", "file=index/data.mdb"), "index spoilt while it runs: the log names it")

        def spoil_frame():
            os.unlink(index)
            frames = frames_of(segment)
            flip(segment, [frames[len(frames) // 2] + 100])

        s.stop()
        spoil_frame()
        since = len(s.log())
        s.start()
        found = subjects(s)
        ok(len(everything) - 2 <= len(found) < len(everything) + 1 and set(found) <= set(everything),
           "a spoilt frame: all but one message are there")
        ok(said(s, since, "store-damaged", "file=log/00000001.seg"), "a spoilt frame: the log names the segment")
        mail.send(s, mail.message("99"), s.mail("alice"))
        eq(subjects(s), found + [99], "a spoilt frame: mail goes in")

        s.stop()
        for name in ("identity", "log/identity", "index/data.mdb"):
            os.unlink(path(s, name))
        since = len(s.log())
        eq(s.try_start(), False, "no identity left: it does not start")
        ok(said(s, since, "store-identity-lost", "file=identity"), "no identity left: the log says so")
        ok(not os.path.exists(path(s, "identity")), "no identity left: none is made beside the segments")
    done()


main()
