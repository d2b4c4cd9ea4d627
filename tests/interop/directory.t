#!/usr/bin/env python3
"""`posthorn domain|user|alias`, with a running server and without: every refusal, passwords from standard input and from elsewhere, and
what a change does to logins and mail at once. SCRAM with mbsync, which chooses it whenever it is offered."""
import imaplib
import os
import smtplib
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

SCRAM = "{SCRAM-SHA-256}4096,MDEyMzQ1Njc4OWFiY2RlZg==,tSgetjYW5SQlNzIxJAKMryuDGH8Snw5oWcj1eOW0ZyI=," \
    "bbZ1dJMgYYaKKR1fU1oGHkWJzi9OQY4yU8Fuksa1t70="


def hash_of(password, kind):
    """A hash as another server made it."""
    return subprocess.run(["openssl", "passwd", kind, "-stdin"], input=password, capture_output=True, text=True,
                          check=True).stdout.strip()


def said(s, status, words, *args, input=""):
    got, out = s.command(*args, input=input)
    good = ok(got == status and words in out.decode(), f"posthorn {' '.join(args)}: {words.splitlines()[0]}")
    if not good:
        note(f"exit status {got}: {out.decode()}")


def refusals(s):
    """The same words, whether a server runs or not."""
    said(s, 1, "a..b is not a valid name", "domain", "add", "a..b")
    said(s, 1, "Example.TEST exists already", "domain", "add", "Example.TEST")
    said(s, 1, "gone.test does not exist", "domain", "remove", "gone.test")
    said(s, 1, "example.test still has accounts or aliases", "domain", "remove", "example.test")
    said(s, 1, "exists already", "user", "add", s.mail("alice"), input="x\n")
    said(s, 1, "is not a valid name", "user", "add", "not an address", input="x\n")
    said(s, 1, "its domain is not in the directory", "user", "add", "x@elsewhere.test", input="x\n")
    said(s, 1, "a password has 1 to 511 bytes", "user", "add", s.mail("new"), input="\n")
    said(s, 1, "a password has 1 to 511 bytes", "user", "add", s.mail("new"), input="x" * 512 + "\n")
    said(s, 1, "no {SCHEME}hash that can be verified", "user", "add", s.mail("new"), "--hash", input="{NONE}x\n")
    said(s, 1, "does not exist", "user", "passwd", s.mail("nobody"), input="x\n")
    said(s, 1, "does not exist", "user", "remove", s.mail("nobody"))
    said(s, 1, "does not exist", "user", "disable", s.mail("nobody"))
    said(s, 1, "does not exist", "user", "quota", s.mail("nobody"), "1g")
    said(s, 1, "is no size", "user", "quota", s.mail("alice"), "1.5g")
    said(s, 1, "exists already", "alias", "add", s.mail("alice"), s.mail("bob"))
    said(s, 1, "would lead to itself", "alias", "add", s.mail("me"), s.mail("me"))
    said(s, 1, "its domain is not in the directory", "alias", "add", "x@elsewhere.test", s.mail("bob"))
    said(s, 1, "does not exist", "alias", "remove", s.mail("noalias"))
    for wrong in (["user"], ["user", "fly"], ["user", "add"], ["user", "list", "--random"], ["domain", "list", "x"],
                  ["user", "add", s.mail("new"), "--random", "--hash"], ["alias", "add", s.mail("x")]):
        said(s, 2, "usage:", *wrong)


def lists(s, name):
    s.command_good("domain", "add", f"{name}.test")
    s.command_good("user", "add", f"{name}@{name}.test", "--quota", "2m", input="secret\n")
    s.command_good("alias", "add", f"all@{name}.test", f"{name}@{name}.test", "x@far.test")
    s.command_good("user", "disable", f"{name}@{name}.test")
    said(s, 0, f"{name}@{name}.test quota=2097152 disabled", "user", "list", f"{name}.test")
    said(s, 0, f"all@{name}.test {name}@{name}.test\nall@{name}.test x@far.test", "alias", "list", f"{name}.test")
    s.command_good("alias", "remove", f"all@{name}.test")
    s.command_good("user", "remove", f"{name}@{name}.test")
    s.command_good("domain", "remove", f"{name}.test")
    ok(name not in s.command_good("domain", "list"), "what was removed is gone")


def can_login(s, name, password):
    client = imaplib.IMAP4_SSL("127.0.0.1", s.port("imaps"), ssl_context=mail.tls_context())
    try:
        return client.login(name, password)[0] == "OK"
    except imaplib.IMAP4.error:
        return False
    finally:
        client.shutdown()


def rcpt(s, address):
    with smtplib.SMTP("127.0.0.1", s.port("smtp")) as client:
        client.ehlo("client.example.org")
        client.mail("me@example.org")
        code, text = client.rcpt(address)
        return f"{code} {text.decode().split(' ')[0]}"


def at_once(s):
    """A change counts for the next login and the next RCPT."""
    carol = s.mail("carol")
    s.command_good("user", "add", carol, input="first password\n")
    ok(can_login(s, carol, "first password"), "a new account can log in")
    ok(can_login(s, carol, "first password"), "... again, remembered")
    s.command_good("user", "passwd", carol, input="second password\n")
    ok(not can_login(s, carol, "first password"), "the old password is refused at once, remembered or not")
    ok(can_login(s, carol, "second password"), "the new one is good")
    eq(rcpt(s, carol), "250 2.1.5", "mail for it is taken")
    s.command_good("user", "disable", carol)
    ok(not can_login(s, carol, "second password"), "disabled: no login")
    eq(rcpt(s, carol), "550 5.2.1", "... and no mail")
    s.command_good("user", "enable", carol)
    ok(can_login(s, carol, "second password"), "enabled again")
    s.command_good("user", "remove", carol)
    ok(not can_login(s, carol, "second password"), "removed: no login")
    eq(rcpt(s, carol), "550 5.1.1", "... and no mail")


def addresses(s):
    s.command_good("domain", "add", "other.test")
    s.command_good("alias", "add", s.mail("team"), s.mail("alice"), s.mail("bob"))
    s.command_good("alias", "add", "@other.test", s.mail("bob"))
    for a, b in (("one", "two"), ("two", "three"), ("three", "one")):
        s.command_good("alias", "add", s.mail(a), s.mail(b))
    eq(rcpt(s, s.mail("one")), "550 5.4.6", "aliases in a circle")
    eq(rcpt(s, "anything@other.test"), "250 2.1.5", "a catch-all")
    eq(rcpt(s, s.mail("alice+list")), "250 2.1.5", "plus addressing")
    eq(rcpt(s, s.mail("nobody+list")), "550 5.1.1", "... of nobody")
    data = mail.message("to the team")
    mail.send(s, data, s.mail("team"))
    for name in ("alice", "bob"):
        got = mail.fetch_all(s, name)
        eq([mail.without_added(m) for m in got.values()], [data], f"an alias reaches {name}, once")
    with smtplib.SMTP_SSL("127.0.0.1", s.port("submissions"), context=mail.tls_context()) as client:
        client.login(s.mail("alice"), s.password("alice"))
        for sender, code in ((s.mail("alice"), 250), (s.mail("alice+shop"), 250), (s.mail("team"), 250), (s.mail("bob"), 553),
                             ("x@other.test", 553), ("alice@far.test", 553)):
            eq(client.mail(sender)[0], code, f"alice sends as {sender}: {code}")
            client.rset()


def from_elsewhere(s):
    """Hashes that another server made, and records by the hundred."""
    s.command_good("user", "add", s.mail("crypt"), "--hash", input="{SHA512-CRYPT}" + hash_of("old one", "-6") + "\n")
    ok(can_login(s, s.mail("crypt"), "old one"), "a SHA512-CRYPT hash")
    ok(not can_login(s, s.mail("crypt"), "another"), "... and no other password")
    s.command_good("user", "remove", s.mail("crypt"))
    lines = "".join(f"many{i:03}@{s.domain} {{SHA256-CRYPT}}{hash_of('x', '-5')} 1m\n" for i in range(3))
    said(s, 1, "its domain is not in the directory", "user", "import", input=lines + "x@elsewhere.test {PLAIN}x\n")
    said(s, 0, "many001@example.test quota=1048576", "user", "list")
    for i in range(3):
        s.command_good("user", "remove", f"many{i:03}@{s.domain}")


def capabilities(s):
    client = imaplib.IMAP4_SSL("127.0.0.1", s.port("imaps"), ssl_context=mail.tls_context())
    found = "AUTH=SCRAM-SHA-256" in client.capabilities
    client.logout()
    with smtplib.SMTP_SSL("127.0.0.1", s.port("submissions"), context=mail.tls_context()) as smtp:
        smtp.ehlo("client.example.org")
        eq("SCRAM-SHA-256" in smtp.esmtp_features["auth"], found, "SMTP and IMAP offer the same")
    return found


def mbsync(s, folder, name, password):
    with open(f"{folder}/rc", "w", encoding="utf-8") as f:
        f.write(f"IMAPAccount a\nHost localhost\nPort {s.port('imaps')}\nSSLType IMAPS\nCertificateFile {s.folder}/cert.pem\n"
                f"User {s.mail(name)}\nPass \"{password}\"\n\nIMAPStore far\nAccount a\n\nMaildirStore near\nPath {folder}/{name}/\n"
                f"Inbox {folder}/{name}/INBOX\n\nChannel c\nFar :far:\nNear :near:\nCreate Near\nSyncState *\n")
    os.makedirs(f"{folder}/{name}", exist_ok=True)
    return mail.run("mbsync", "-c", f"{folder}/rc", "-a", env={**os.environ, "HOME": folder})


def scram(s, folder):
    ok(capabilities(s), "SCRAM is offered while every account has its keys")
    eq(mbsync(s, folder, "alice", s.password("alice"))[0], 0, "mbsync logs in with it")
    s.command_good("user", "add", s.mail("moved"), "--hash", input="{SHA512-CRYPT}" + hash_of("old one", "-6") + "\n")
    ok(not capabilities(s), "an account with a foreign hash: it is offered no more")
    result = mbsync(s, folder, "moved", "old one")
    if not ok(result[0] == 0, "... and mbsync logs in to that account"):
        note(result[1].decode(errors="replace"))
    s.command_good("user", "passwd", s.mail("moved"), input="new one\n")
    ok(capabilities(s), "a new password gives it the keys")
    s.command_good("user", "add", s.mail("keys"), "--hash", input=SCRAM + "\n")
    ok(capabilities(s), "SCRAM's own stored form is enough")
    s.command_good("user", "remove", s.mail("keys"))


def below_a_closed_folder():
    """Started by root below /root, say: the roles' users may not enter that folder, and need not."""
    with tempfile.TemporaryDirectory(prefix="posthorn-closed-") as closed:  # mode 0700
        tempfile.tempdir = closed
        s = Server()
        tempfile.tempdir = None
        with s:
            mail.send(s, mail.message("into a closed folder"), s.mail("alice"))
            eq(len(mail.fetch_all(s, "alice")), 1, "a server below a folder that its users may not enter")
            eq(s.command("user", "add", s.mail("new"), input="x\n")[0], 0, "... with its directory")
            eq(s.crashes(), [], "no role crashed")


def main():
    s = Server()
    refusals(s)
    lists(s, "offline")
    with s:
        refusals(s)
        lists(s, "online")
        at_once(s)
        addresses(s)
        from_elsewhere(s)
        eq(s.crashes(), [], "no role crashed")
    with Server(scheme="ARGON2ID") as s, tempfile.TemporaryDirectory(prefix="posthorn-interop-") as folder:
        scram(s, folder)
        eq(s.crashes(), [], "no role crashed")
    below_a_closed_folder()
    done()


main()
