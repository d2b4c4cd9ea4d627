#!/usr/bin/env python3
"""Expunged mail is brought back on the running server, by the administrator: all of it or what went since a time, into a mailbox that a
client which is connected is told of. It survives kill -9, a deleted mailbox and compaction in between; what is old goes for good; a full
disk keeps nothing.
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

SIZES = [300, 5000, 70000, 1200000]  # one in a file of its own


def expunge(server, mailbox="INBOX", which="1:*"):
    client = mail.imap(server, "alice")
    client.select(mailbox)
    client.store(which, "+FLAGS.SILENT", "(\\Deleted \\Flagged)")
    eq(client.expunge()[0], "OK", f"{mailbox} is expunged")
    client.shutdown()


def contents(server, mailbox):
    return sorted(mail.without_added(data) for data in mail.fetch_all(server, "alice", mailbox).values())


def uids(server, mailbox):
    return sorted(mail.fetch_all(server, "alice", mailbox))


def quota(server):
    used = mail.re.search(r"(\d+)[^\d]+used|used[^\d]+(\d+)", server.command_good("user", "quota", server.mail("alice")))
    return int(next(group for group in used.groups() if group))


def eventually(act, what):
    until = time.monotonic() + 60
    while not act():
        if time.monotonic() > until:
            return ok(False, what)
        threading.Event().wait(0.1)
    return ok(True, what)


def main():
    with Server(config=["disable_plaintext_auth = no"]) as s:
        alice, sent = s.mail("alice"), [mail.message(f"n{i}", size=size) for i, size in enumerate(SIZES)]
        eq(s.command("undelete", "nobody@example.test")[0], 1, "of somebody who never had mail: refused")
        eq(s.command("undelete")[0], 2, "without an address: the usage")
        eq(s.command("undelete", alice, "--since", "yesterday-ish")[0], 2, "a time that is none: the usage")
        for data in sent:
            mail.send(s, data, alice)
        ok("nothing to recover" in s.command_good("undelete", alice), "nothing was expunged yet")
        full = quota(s)
        expunge(s)
        eq(contents(s, "INBOX"), [], "the mailbox is empty")
        eq(quota(s), 0, "and the quota free")
        listed = s.command_good("undelete", alice, "--list").splitlines()
        eq(len(listed), len(sent), "all are listed")
        ok(all("of INBOX" in line for line in listed), "with the mailbox they were in")
        ok("nothing to recover" in s.command_good("undelete", alice, "--since", "2050-01-01"), "none went in the future")

        s.kill()
        s.start()
        status, out = s.command("compact")
        eq(status, 0, f"compact: {out.decode().strip()}")

        watcher = mail.imap(s, "alice")
        eq(s.command_good("undelete", alice.upper(), "--since", "1h"), "4 messages are back, in the mailbox Recovered\n", "recovered")
        eq(watcher.select("Recovered")[1][0], b"4", "a client that was connected sees them")
        _, flags = watcher.fetch("1:*", "(FLAGS)")
        ok(all(b"\\Flagged" in f and b"\\Deleted" not in f for f in flags), "with their flags, but for \\Deleted")
        watcher.shutdown()
        eq(contents(s, "Recovered"), sorted(sent), "byte for byte")
        eq(quota(s), full, "they count again")
        ok("nothing to recover" in s.command_good("undelete", alice), "and are not there twice")

        # Again, from a mailbox that is deleted, into one of another name.
        client = mail.imap(s, "alice")
        eq(client.delete("Recovered")[0], "OK", "the mailbox is deleted")
        client.shutdown()
        eq(s.command_good("undelete", alice, "--mailbox", "INBOX"), "4 messages are back, in the mailbox INBOX\n", "into INBOX")
        eq(uids(s, "INBOX"), [5, 6, 7, 8], "with new UIDs")
        eq(contents(s, "INBOX"), sorted(sent), "byte for byte again")

        # More than one page of the answer.
        client = mail.imap(s, "alice", service="imap")
        client.create("Many")
        for i in range(1300):
            client.append("Many", None, None, b"Subject: %d\r\n\r\nx\r\n" % i)
        client.shutdown()
        expunge(s, "Many")
        eq(len(s.command_good("undelete", alice, "--list").splitlines()), 1300, "many are listed")
        s.command_good("undelete", alice, "--mailbox", "Many")
        eq(uids(s, "Many"), list(range(1301, 2601)), "and recovered, in their order")

        # What is kept no longer goes, with its file.
        bodies = os.path.join(s.folder, "data/store/body")
        eq(len(os.listdir(bodies)), 1, "the large one has its file")
        expunge(s)
        eq(len(os.listdir(bodies)), 1, "and keeps it while it can be recovered")
        s.config = [line for line in s.config if "keep_expunged" not in line] + ["keep_expunged = 0"]
        s.write_config()
        s.command_good("reload")
        eventually(lambda: not os.listdir(bodies), "when nothing is kept any more, its file goes")
        ok("nothing to recover" in s.command_good("undelete", alice), "and it cannot be recovered")
        if not ok(not s.crashes(), "nothing crashed"):
            note("\n".join(s.crashes()))
    done()


main()
