#!/usr/bin/env python3
"""Debian's clients against Posthorn: swaks, curl, smtplib, imaplib, mbsync, neomutt. What one sends, the others read to the byte."""
import os
import pty
import select
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402


def write(path, data, mode=0o600):
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    os.chmod(path, mode)


def check_good(result, what):
    if not ok(result[0] == 0, what):
        note(result[1].decode(errors="replace")[-3000:])


def newest(server, user, mailbox="INBOX"):
    found = mail.fetch_all(server, user, mailbox)
    return mail.without_added(found[max(found)]) if found else b""


def swaks(s, folder):
    data = mail.message("by swaks")
    write(f"{folder}/m.eml", data[:-2])  # swaks ends the last line itself
    base = ["swaks", "--data", f"@{folder}/m.eml", "--from", "me@example.org", "--to", s.mail("alice"), "--ehlo", "client.example.org"]
    check_good(mail.run(*base, "--server", s.address("smtp")), "swaks: SMTP")
    eq(newest(s, "alice"), data, "... and it is the same to the byte")
    check_good(mail.run(*base, "--server", s.address("smtp"), "--tls"), "swaks: SMTP with STARTTLS")
    check_good(mail.run(*base, "--server", s.address("lmtp"), "--protocol", "LMTP"), "swaks: LMTP")
    login = ["swaks", "--data", f"@{folder}/m.eml", "--from", s.mail("alice"), "--to", s.mail("bob"), "--auth-user", s.mail("alice"),
             "--auth-password", s.password("alice")]
    for how in ("PLAIN", "LOGIN"):
        check_good(mail.run(*login, "--server", s.address("submission"), "--tls", "--auth", how),
                   f"swaks: submission with STARTTLS and AUTH {how}")
    check_good(mail.run(*login, "--server", s.address("submissions"), "--tls-on-connect", "--auth", "PLAIN"),
               "swaks: submissions with AUTH PLAIN")
    status, out = mail.run(*login, "--server", s.address("submission"), "--auth", "PLAIN")
    ok(status != 0 and b"AUTH" not in b"".join(line for line in out.split(b"\n") if line.startswith(b"<-  250")),
       "without TLS no AUTH is offered")
    status, out = mail.run("swaks", "--server", s.address("smtp"), "--from", "a@example.org", "--to", "nobody@" + s.domain)
    ok(b"550 5.1.1" in out, "an unknown recipient is refused at RCPT")
    status, out = mail.run("swaks", "--server", s.address("smtp"), "--from", "a@example.org", "--to", "x@elsewhere.example")
    ok(b"554 5.7.1" in out, "no relaying for strangers")


def curl(s, folder):
    data = mail.message("by curl", size=30000)
    write(f"{folder}/c.eml", data)
    user = f"{s.mail('bob')}:{s.password('bob')}"
    check_good(mail.run("curl", "-sS", "-k", "--ssl-reqd", f"smtp://{s.address('submission')}/client.example.org", "--user", user,
                        "--mail-from", s.mail("bob"), "--mail-rcpt", s.mail("bob"), "--upload-file", f"{folder}/c.eml"),
               "curl: submission")
    uid = max(mail.fetch_all(s, "bob"))
    status, out = mail.run("curl", "-sS", "-k", "--user", user, f"imaps://{s.address('imaps')}/INBOX;UID={uid}")
    ok(status == 0, "curl: fetch over imaps")
    eq(mail.without_added(out), data, "... and it is the same to the byte")
    status, out = mail.run("curl", "-sS", "-k", "--user", user, f"imaps://{s.address('imaps')}/INBOX?SUBJECT%20%22by%20curl%22")
    ok(status == 0 and b"* SEARCH" in out, "curl: search")
    check_good(mail.run("curl", "-sS", "-k", "--user", user, f"imaps://{s.address('imaps')}/Drafts", "--upload-file",
                        f"{folder}/c.eml"), "curl: append to Drafts")
    eq(newest(s, "bob", "Drafts"), data, "... and it is the same to the byte")


def python(s):
    for service in ("smtp", "lmtp"):
        data = mail.message(f"by smtplib {service}", size=100000)
        eq(mail.send(s, data, s.mail("alice"), service=service), {}, f"smtplib: {service}")
        eq(newest(s, "alice"), data, "... and it is the same to the byte")
    data = mail.message("by imaplib")
    for service in ("imap", "imaps"):
        client = mail.imap(s, "alice", service)
        eq(client.create(f"Folder-{service}")[0], "OK", f"imaplib: {service}: CREATE")
        eq(client.append(f"Folder-{service}", "(\\Seen)", None, data)[0], "OK", "APPEND")
        eq(client.select(f"Folder-{service}")[1], [b"1"], "SELECT")
        eq(client.store("1", "+FLAGS", "(\\Deleted)")[0], "OK", "STORE")
        eq(client.copy("1", "INBOX")[0], "OK", "COPY")
        eq(client.expunge()[1], [b"1"], "EXPUNGE")
        client.close()
        client.logout()
    eq(newest(s, "alice"), data, "what was copied is the same to the byte")


def mbsync(s, folder):
    os.mkdir(f"{folder}/maildir")
    write(f"{folder}/password", s.password("alice") + "\n")
    write(f"{folder}/mbsyncrc", f"""
IMAPAccount posthorn
Host localhost
Port {s.port('imaps')}
SSLType IMAPS
CertificateFile {s.folder}/cert.pem
User {s.mail('alice')}
PassCmd "cat {folder}/password"

IMAPStore far
Account posthorn

MaildirStore near
Path {folder}/maildir/
Inbox {folder}/maildir/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
""")
    check_good(mail.run("mbsync", "-c", f"{folder}/mbsyncrc", "-a", env={**os.environ, "HOME": folder}), "mbsync: everything here")
    there = sorted(mail.fetch_all(s, "alice").values())
    here = []
    for sub in ("cur", "new"):
        for name in os.listdir(f"{folder}/maildir/INBOX/{sub}"):
            with open(f"{folder}/maildir/INBOX/{sub}/{name}", "rb") as f:
                # mbsync marks what it copied with a field of its own.
                here.append(mail.re.sub(rb"(?m)^X-TUID: .*\r?\n", b"", f.read()).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    eq(len(here), len(there), "as many messages in the Maildir as in INBOX")
    ok(sorted(here) == there, "... and each is the same")
    data = mail.message("by mbsync").replace(b"\r\n", b"\n")
    write(f"{folder}/maildir/INBOX/cur/1.host:2,S", data)
    check_good(mail.run("mbsync", "-c", f"{folder}/mbsyncrc", "-a", env={**os.environ, "HOME": folder}), "mbsync: one there")
    ok(any(b"Subject: by mbsync" in m for m in mail.fetch_all(s, "alice").values()), "... and it is in INBOX")


def mbsync_many(s, folder):
    """1,000 messages there and back, flags both ways, and then nothing to do."""
    inbox, env = f"{folder}/maildir/INBOX", {**os.environ, "HOME": folder}

    def sync(what):
        status, out = mail.run("mbsync", "-V", "-c", f"{folder}/mbsyncrc", "-a", env=env)
        check_good((status, out), f"mbsync: {what}")

    def flags_here():
        """{subject: flags} of the Maildir."""
        found = {}
        for sub in ("cur", "new"):
            for name in os.listdir(f"{inbox}/{sub}"):
                with open(f"{inbox}/{sub}/{name}", "rb") as f:
                    subject = mail.re.search(rb"(?m)^Subject: (many \d+)\r?$", f.read())
                if subject:
                    found[subject.group(1)] = name.partition(":2,")[2]
        return found

    for i in range(1000):
        write(f"{inbox}/cur/many{i}.host:2,{'S' if i % 2 else ''}", mail.message(f"many {i}", 300).replace(b"\r\n", b"\n"))
    sync("1,000 messages from here")
    client = mail.imap(s, "alice")
    client.select("INBOX")
    uids = client.uid("SEARCH", "SUBJECT", '"many "')[1][0].split()
    eq(len(uids), 1000, "... are there")
    eq(len(client.uid("SEARCH", "SUBJECT", '"many "', "SEEN")[1][0].split()), 500, "... with their flags")
    client.uid("STORE", b",".join(uids[:100]).decode(), "+FLAGS.SILENT", "(\\Flagged \\Answered)")
    client.uid("STORE", b",".join(uids[-100:]).decode(), "+FLAGS.SILENT", "(\\Deleted)")
    client.expunge()
    flagged = set(mail.re.findall(rb"Subject: (many \d+)", b"".join(
        p[1] for p in client.uid("FETCH", b",".join(uids[:100]).decode(), "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1] if isinstance(p, tuple))))
    seen = [name for name in os.listdir(f"{inbox}/cur") if name.endswith(",S")][:50]
    for name in seen:
        os.rename(f"{inbox}/cur/{name}", f"{inbox}/cur/{name[:-1]}RS")
    sync("flags and expunges both ways")
    here = flags_here()
    eq(len(here), 900, "what was expunged there is gone here")
    eq({subject for subject, flags in here.items() if "F" in flags}, flagged, "what was flagged there is flagged here")
    client.select("INBOX")
    ok(len(client.uid("SEARCH", "ANSWERED", "SEEN")[1][0].split()) >= 50, "what was answered here is answered there")
    client.logout()
    before = sorted(os.listdir(f"{inbox}/cur"))
    sync("once more")
    eq((sorted(os.listdir(f"{inbox}/cur")), flags_here()), (before, here), "... and there is nothing to do")


def neomutt(s, folder):
    write(f"{folder}/muttrc", f"""
set folder="imaps://localhost:{s.port('imaps')}/"
set spoolfile="+INBOX"
set imap_user="{s.mail('bob')}"
set imap_pass="{s.password('bob')}"
set ssl_verify_host=no
set ssl_verify_dates=no
set certificate_file="{s.folder}/cert.pem"
set smtp_url="smtps://{s.mail('bob')}@localhost:{s.port('submissions')}/"
set smtp_pass="{s.password('bob')}"
set from="{s.mail('bob')}"
set realname="Bob"
set record=""
set confirmappend=no
set confirmcreate=no
set mbox_type=mbox
set mail_check=0
set quit=yes
""")
    env = {**os.environ, "HOME": folder, "TERM": "xterm"}
    check_good(mail.run("neomutt", "-n", "-F", f"{folder}/muttrc", "-s", "by neomutt", "--", s.mail("alice"),
                        input=b"Hello from neomutt\n", env=env), "neomutt: sends by submissions")
    ok(any(b"Subject: by neomutt" in m for m in mail.fetch_all(s, "alice").values()), "... and it arrived")
    status = at_terminal(["neomutt", "-n", "-F", f"{folder}/muttrc", "-f", "+INBOX", "-e",
                          f"push '<last-entry><copy-message>{folder}/copied<enter><flag-message><sync-mailbox><exit>'"], env)
    ok(status == 0, "neomutt: opens INBOX, copies a message to a file, flags it")
    data = mail.fetch_all(s, "bob")
    with open(f"{folder}/copied", "rb") as f:
        copied = f.read()
    ok(data[max(data)].split(b"\r\n\r\n", 1)[1].replace(b"\r\n", b"\n") in copied, "... the file has its text")
    client = mail.imap(s, "bob")
    client.select("INBOX", readonly=True)
    eq(client.uid("SEARCH", "FLAGGED")[1], [str(max(data)).encode()], "... and it is flagged in INBOX")
    client.logout()
    neomutt_moves(s, folder, env)


def subjects(server, user, mailbox):
    """How often each subject that begins with "mutt" is in a mailbox."""
    found = {}
    for data in mail.fetch_all(server, user, mailbox).values():
        subject = mail.re.search(rb"(?m)^Subject: (mutt \w+)\r$", data)
        if subject:
            found[subject.group(1).decode()] = found.get(subject.group(1).decode(), 0) + 1
    return found


def neomutt_moves(s, folder, env):
    """One message is saved to another mailbox, one deleted, one deleted to the trash."""
    for what in ("stays", "moves", "goes", "trashed"):
        mail.send(s, mail.message(f"mutt {what}"), s.mail("bob"), service="lmtp")
    before = len(mail.fetch_all(s, "bob"))

    def push(what, keys, *settings):
        options = [word for setting in ("delete=yes", "wait_key=no", *settings) for word in ("-e", f"set {setting}")]
        status = at_terminal(["neomutt", "-n", "-F", f"{folder}/muttrc", *options, "-f", "+INBOX", "-e", f"push '{keys}'"], env)
        ok(status == 0, f"neomutt: {what}")

    push("saves a message to another mailbox",
         '<limit>~s "mutt moves"<enter><first-entry><save-message>=Archive<enter><sync-mailbox><exit>')
    eq(subjects(s, "bob", "Archive"), {"mutt moves": 1}, "... and it is there, once")
    push("deletes a message", '<limit>~s "mutt goes"<enter><first-entry><delete-message><sync-mailbox><exit>')
    push("deletes a message to the trash", '<limit>~s "mutt trashed"<enter><first-entry><delete-message><sync-mailbox><exit>',
         "trash=+Trash")
    eq(subjects(s, "bob", "Trash"), {"mutt trashed": 1}, "... and it is in Trash, once")
    eq(subjects(s, "bob", "INBOX"), {"mutt stays": 1}, "... and all three are gone from INBOX")
    eq(len(mail.fetch_all(s, "bob")), before - 3, "... and nothing else is")


def at_terminal(words, env):
    """Runs a program at a terminal of its own; its exit status."""
    master, slave = pty.openpty()
    p = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True)
    os.close(slave)
    until = time.monotonic() + 60
    while p.poll() is None and time.monotonic() < until:
        if select.select([master], [], [], 0.1)[0]:
            try:
                os.read(master, 65536)
            except OSError:
                break  # it closed the terminal
    try:
        return p.wait(5)
    except subprocess.TimeoutExpired:
        p.kill()
        return p.wait()
    finally:
        os.close(master)


def main():
    with Server(scheme="ARGON2ID") as s, tempfile.TemporaryDirectory(prefix="posthorn-interop-") as folder:
        swaks(s, folder)
        curl(s, folder)
        python(s)
        mbsync(s, folder)
        mbsync_many(s, folder)
        neomutt(s, folder)
        eq(s.crashes(), [], "no role crashed")
    done()


main()
