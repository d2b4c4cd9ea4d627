#!/usr/bin/env python3
"""A full disk: all data lie on a small file system of their own. New mail is refused for the time being (452, NO), what is there can
be read and expunged, logins go on, accounts cannot be made but keep what they are, and when there is room again everything works
without a restart, the history too. Nothing acknowledged is lost.

Mounting needs root (or sudo).
"""
import errno
import os
import shutil
import smtplib
import subprocess
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server  # noqa: E402
from tap import as_root, done, eq, note, ok  # noqa: E402

SIZE_MB = 640  # the store keeps 256 MB free


class SmallDisk(Server):
    """A server whose data are on a tmpfs."""

    def mount(self):
        self.disk = os.path.join(self.folder, "data")
        st = os.stat(self.disk)
        shutil.move(self.disk, self.disk + ".before")
        os.mkdir(self.disk)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode={st.st_mode & 0o777:o}", "none", self.disk], check=True)
        subprocess.run(["cp", "-a", self.disk + ".before/.", self.disk], check=True)  # the accounts

    def __exit__(self, kind, value, trace):
        try:
            if kind:
                self.kill()
            else:
                self.stop()
        finally:
            subprocess.run(["umount", "-l", self.disk], check=False)
            super().__exit__(kind, value, trace)


def free(server):
    st = os.statvfs(server.disk)
    return st.f_bavail * st.f_frsize


def fill(server, leave):
    """The rest of the disk, but for so many bytes, as another program would take it; the server takes some at the same time."""
    piece = 64 * 1024 * 1024
    with open(os.path.join(server.disk, "ballast"), "ab") as f:
        while piece >= 4096 and (room := free(server) - leave) > 0:
            try:
                os.posix_fallocate(f.fileno(), os.fstat(f.fileno()).st_size, min(piece, room))
            except OSError as e:
                if e.errno != errno.ENOSPC:
                    raise
                piece //= 2


def empty(server):
    os.unlink(os.path.join(server.disk, "ballast"))


def send(server, subject, size=2000):
    """The reply's code."""
    try:
        mail.send(server, mail.message(subject, size=size), server.mail("alice"))
        return 250
    except smtplib.SMTPDataError as e:
        return e.smtp_code
    except smtplib.SMTPRecipientsRefused as e:
        return list(e.recipients.values())[0][0]
    except smtplib.SMTPSenderRefused as e:
        return e.smtp_code


def subjects(server):
    found = mail.fetch_all(server, "alice").values()
    return sorted(mail.re.search(rb"^Subject: (\S+)\r$", data, mail.re.M).group(1).decode() for data in found)


def until_code(server, wanted, subject):
    """The space is looked at now and then, so a few may pass; returns those that were taken."""
    taken, end = [], time.monotonic() + 60
    for i in range(10 ** 6):
        key = f"{subject}{i}"
        code = send(server, key, size=200000)
        if code == 250:
            taken.append(key)
        if code == wanted or time.monotonic() > end:
            return taken, code
    return taken, 0


def full(server, leave, what, have):
    """With so little left: refused, read, expunged; then room, and it goes on."""
    fill(server, leave)
    taken, code = until_code(server, 452, what)
    have += taken
    eq(code, 452, f"{what}: deliveries are refused with 452")
    client = mail.imap(server, "alice")
    status, answer = client.append("INBOX", None, None, mail.message("no"))
    eq(status, "NO", f"{what}: APPEND is refused ({answer[0].decode()})")
    eq(subjects(server), sorted(have), f"{what}: what is there can be read")
    client.select("INBOX")
    status, found = client.uid("SEARCH", "SUBJECT", f'"{have[0]}"')
    status, answer = client.uid("STORE", found[0].split()[0].decode(), "+FLAGS", "(\\Deleted)")
    eq(status, "OK", f"{what}: flags are set")
    eq(client.expunge()[0], "OK", f"{what}: it can be expunged")
    client.shutdown()
    have.remove(have[0])
    eq(subjects(server), sorted(have), f"{what}: and is gone")
    empty(server)
    eq(send(server, f"{what}-after"), 250, f"{what}: with room again, mail goes in without a restart")
    have.append(f"{what}-after")
    client = mail.imap(server, "alice")
    eq(client.append("INBOX", None, None, mail.message(f"{what}-append"))[0], "OK", f"{what}: APPEND too")
    client.shutdown()
    have.append(f"{what}-append")
    eq(subjects(server), sorted(have), f"{what}: all of it is there")


def others(server, have):
    """What else writes: the directory of accounts, the history."""
    fill(server, 0)
    status, out = server.command("user", "add", server.mail("carol"), input="secret")
    ok(status == 1 and b"disk is full" in out, f"nothing left: an account cannot be made ({out.decode().strip()})")
    mail.imap(server, "bob").logout()
    ok("carol" not in server.command_good("user", "list"), "nothing left: the accounts are as they were, and logins go on")
    have += [key for key in ("refused1", "refused2", "refused3") if send(server, key) == 250]
    empty(server)
    taken, code = until_code(server, 250, "others")
    have += taken
    server.add_account("carol")
    mail.imap(server, "carol").logout()
    ok(True, "with room again, an account is made and logs in")
    mail.send(server, mail.message("traced"), server.mail("carol"), sender="after@example.org")
    end = time.monotonic() + 60
    while server.command("trace", "after@example.org")[0] and time.monotonic() < end:
        threading.Event().wait(0.05)
    eq(server.command("trace", "after@example.org")[0], 0, "and the history goes on")


def pressed(server, have):
    """Filled up under load: whatever is answered with 250 is there."""
    taken, stop, enough = [], threading.Event(), threading.Event()

    def load(number):
        count = 0
        while not stop.is_set():
            key = f"load{number}-{count}"
            count += 1
            try:
                if send(server, key, size=60000) == 250:
                    taken.append(key)
                if len(taken) >= 20:
                    enough.set()
            except (OSError, smtplib.SMTPException):
                pass

    threads = [threading.Thread(target=load, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    enough.wait(60)
    fill(server, 0)
    refused = until_code(server, 452, "pressed")
    have += refused[0]
    eq(refused[1], 452, "filled under load: refused with 452")
    stop.set()
    for t in threads:
        t.join()
    empty(server)
    have += taken
    eq(send(server, "pressed-after"), 250, "filled under load: with room again, mail goes in")
    have.append("pressed-after")
    eq(subjects(server), sorted(have), "filled under load: what was acknowledged is there")


def main():
    as_root()
    s = SmallDisk()
    s.mount()
    with s:
        have = ["first", "second", "third"]
        for key in have:
            eq(send(s, key), 250, f"{key} goes in")
        full(s, 200 * 1024 * 1024, "below-the-reserve", have)
        full(s, 0, "nothing-left", have)
        pressed(s, have)
        others(s, have)
        s.stop()
        s.start()
        eq(subjects(s), sorted(have), "after a restart, all of it is there")
        if not ok(not s.crashes(), "nothing crashed"):
            note("\n".join(s.crashes()))
    done()


main()
