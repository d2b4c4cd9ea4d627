#!/usr/bin/env python3
"""`posthorn reload` and SIGHUP with connections open, each in the middle of something: a DATA, a chunk, an APPEND's literal, a
transaction under TLS after AUTH, an IDLE, a connection that sleeps. Nothing is dropped and no role begins anew; new connections see
the new settings and the new certificate; a configuration with a fault changes nothing. The folder may be named from where one is.
Then reloads under load, often.
"""
import base64
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server, binary  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

RELOADS = int(os.environ.get("RELOADS", "10"))  # under load


class Line:
    """A connection of lines, under TLS or not."""

    def __init__(self, server, service, tls=False):
        self.socket = socket.create_connection(("127.0.0.1", server.port(service)), timeout=60)
        if tls:
            self.start_tls()
        self.file = self.socket.makefile("rb")

    def start_tls(self):
        self.socket = mail.tls_context().wrap_socket(self.socket)
        self.file = self.socket.makefile("rb")

    def send(self, text):
        self.socket.sendall(text if isinstance(text, bytes) else text.encode() + b"\r\n")

    def reply(self):
        """The last line of an SMTP reply."""
        while True:
            line = self.file.readline().decode()
            if line[3:4] != "-":
                return line.rstrip("\r\n")

    def do(self, *commands):
        for command in commands:
            self.send(command)
            last = self.reply()
        return last

    def until(self, start):
        """The line that begins so; "" at the end of the connection."""
        for line in iter(self.file.readline, b""):
            if line.decode().startswith(start):
                return line.decode().rstrip("\r\n")
        return ""

    def close(self):
        self.file.close()
        self.socket.close()


def new_certificate(server, name):
    """Another one over the files that the configuration names."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                    "-subj", f"/CN={name}", "-keyout", f"{server.folder}/key.pem", "-out", f"{server.folder}/cert.pem"],
                   check=True, capture_output=True)


def served_certificate(server):
    with socket.create_connection(("127.0.0.1", server.port("imaps")), timeout=60) as plain:
        with mail.tls_context().wrap_socket(plain) as s:
            return ssl.DER_cert_to_PEM_cert(s.getpeercert(binary_form=True))


def greeting(server):
    c = Line(server, "smtp")
    words = c.reply().split()
    c.send(b"EHLO client.example.org\r\nQUIT\r\n")
    size = [line for line in iter(lambda: c.file.readline().decode().rstrip("\r\n"), "") if line[4:].startswith("SIZE")]
    c.close()
    return words[1], size[0][9:] if size else ""


def eventually(get, wanted):
    """Each role takes the settings over for itself, and tells nobody when; a minute is enough for all of them."""
    until = time.monotonic() + 60
    while (got := get()) != wanted and time.monotonic() < until:
        threading.Event().wait(0.02)
    return got


class Middle:
    """One connection of each kind, half through."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        data = {what: mail.message(f"{name}-{what}", size=3000) for what in ("data", "bdat", "auth", "append", "lmtp")}
        self.data = data
        self.smtp = self.transaction("smtp")
        self.smtp.do("DATA")
        self.smtp.send(stuffed(data["data"])[:1000])
        self.bdat = self.transaction("smtp")
        self.bdat.send(f"BDAT {len(data['bdat'])} LAST\r\n".encode() + data["bdat"][:1000])
        self.lmtp = self.transaction("lmtp")
        self.auth = self.submission()
        self.append = self.imap("imaps")
        self.append.send(f"a1 APPEND INBOX {{{len(data['append'])}}}")
        self.append.until("+")
        self.append.send(data["append"][:1000])
        self.idle = self.imap("imap")
        self.tls_idle = self.imap("imaps")
        for c in (self.idle, self.tls_idle):
            c.send("i1 SELECT INBOX")
            c.until("i1 OK")
            c.send("i2 IDLE")
            c.until("+")
        self.dialogue = Line(server, "smtp")
        self.dialogue.reply()

    def transaction(self, service):
        c = Line(self.server, service)
        c.reply()
        c.do("LHLO client.example.org" if service == "lmtp" else "EHLO client.example.org", "MAIL FROM:<me@example.org>",
             f"RCPT TO:<{self.server.mail('alice')}>")
        return c

    def submission(self):
        c = Line(self.server, "submission")
        c.reply()
        c.do("EHLO client.example.org", "STARTTLS")
        c.start_tls()
        plain = base64.b64encode(f"\0{self.server.mail('bob')}\0{self.server.password('bob')}".encode()).decode()
        c.do("EHLO client.example.org", f"AUTH PLAIN {plain}", f"MAIL FROM:<{self.server.mail('bob')}>")
        return c

    def imap(self, service):
        c = Line(self.server, service, tls=service == "imaps")
        c.until("* OK")
        c.send(f'l1 LOGIN "{self.server.mail("alice")}" "{self.server.password("alice")}"')
        c.until("l1 OK")
        return c

    def finish(self):
        what, data = self.name, self.data
        self.smtp.send(stuffed(data["data"])[1000:] + b".\r\n")
        eq(self.smtp.reply()[:3], "250", f"{what}: the rest of DATA is taken")
        self.bdat.send(data["bdat"][1000:])
        eq(self.bdat.reply()[:3], "250", f"{what}: the rest of the chunk is taken")
        self.lmtp.do("DATA")
        self.lmtp.send(stuffed(data["lmtp"]) + b".\r\n")
        eq(self.lmtp.reply()[:3], "250", f"{what}: LMTP goes on after RCPT")
        self.auth.do(f"RCPT TO:<{self.server.mail('alice')}>", "DATA")
        self.auth.send(stuffed(data["auth"]) + b".\r\n")
        eq(self.auth.reply()[:3], "250", f"{what}: the submission goes on under TLS, still logged in")
        self.append.send(data["append"][1000:] + b"\r\n")
        eq(self.append.until("a1")[:5], "a1 OK", f"{what}: the rest of the literal is taken")
        for name, c in (("IDLE", self.idle), ("IDLE under TLS", self.tls_idle)):
            ok(c.until("* ").endswith("EXISTS"), f"{what}: {name} hears of it")
            c.send("DONE")
            eq(c.until("i2")[:5], "i2 OK", f"{what}: {name} ends with its tag")
        eq(self.dialogue.do("EHLO client.example.org", "NOOP")[:3], "250", f"{what}: a connection that had only been greeted works")
        found = [mail.without_added(m) for m in mail.fetch_all(self.server, "alice").values()]
        sent = [m for key, m in data.items() if key != "auth"]
        ok(all(m in found for m in sent), f"{what}: what was half through is stored whole")
        for c in (self.smtp, self.bdat, self.lmtp, self.auth, self.append, self.idle, self.tls_idle, self.dialogue):
            c.close()


def stuffed(data):
    return mail.re.sub(rb"^\.", b"..", data, flags=mail.re.M)


def settings(server, hostname, size):
    server.config = ["disable_plaintext_auth = no", f"myhostname = {hostname}", f"message_size_limit = {size}"]
    server.write_config()


def each_way(s):
    ways = (("posthorn reload", lambda: s.command_good("reload")),
            ("SIGHUP", lambda: os.kill(s.process.pid, signal.SIGHUP)))
    for number, (what, act) in enumerate(ways, 1):
        before, old = s.roles(), served_certificate(s)
        middle = Middle(s, what.replace(" ", "-"))
        name = f"mx{number}.example.test"
        settings(s, name, 1000000 + number)
        new_certificate(s, name)
        act()
        eq(eventually(lambda: greeting(s), (name, str(1000000 + number))), (name, str(1000000 + number)),
           f"{what}: new connections see the new name and size")
        ok(eventually(lambda: served_certificate(s) != old, True), f"{what}: and the new certificate")
        middle.finish()
        eq(s.roles(), before, f"{what}: no role began anew")


def refused(s):
    had, before = greeting(s), s.roles()
    s.config.append("message_size_limt = 5")
    s.write_config()
    status, out = s.command("reload")
    ok(status != 0 and b'did you mean "message_size_limit"' in out, f"a fault in the configuration: reload names it ({out!r})")
    os.kill(s.process.pid, signal.SIGHUP)
    ok(eventually(lambda: "error reload-refused" in s.log(), True), "... and after SIGHUP the log does")
    s.config.pop()
    s.write_config()  # the commands read it too
    eq((greeting(s), s.roles()), (had, before), "... and everything is as it was")
    s.config.append("front_processes = 5")
    s.write_config()
    eq(s.command("reload")[0], 0, "a setting that needs a restart: the rest is taken over")
    ok("front_processes" in s.log().split("reload-partly")[-1].split("\n")[0], "... and the log names it")
    s.config.pop()
    s.write_config()
    s.command_good("reload")
    eq((greeting(s), s.roles()), (had, before), "... and everything is as it was")


def under_load(s):
    """Clients that do nothing but work, while the settings change under them as fast as they are taken over."""
    failed, count, over = [], [0] * 4, threading.Event()

    def by_smtp(number):
        with mail.smtplib.SMTP("127.0.0.1", s.port("smtp"), timeout=60) as client:
            while not over.is_set():
                client.sendmail("load@example.org", [s.mail("bob")], mail.message(f"load {number}", size=20000))
                count[number] += 1

    def by_imap(number):
        while not over.is_set():
            client = mail.imap(s, "bob", service="imaps" if number % 2 else "imap")
            for _ in range(5):
                if client.append("Drafts", None, None, mail.message("load", size=20000))[0] != "OK":
                    raise RuntimeError("APPEND")
                count[number] += 1
            client.logout()

    def work(number):
        try:
            (by_smtp if number < 2 else by_imap)(number)
        except Exception as e:  # noqa: BLE001 - whatever it is, it is a failure
            failed.append(repr(e))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for turn in range(RELOADS):
        settings(s, f"load{turn}.example.test", 2000000 + turn)
        s.command_good("reload")
        had = list(count)
        eventually(lambda: failed or all(now > before for now, before in zip(count, had)), True)
    over.set()
    for t in threads:
        t.join(60)
    eq(failed, [], f"{RELOADS} reloads under load: no command failed")
    eq((len(mail.fetch_all(s, "bob")), len(mail.fetch_all(s, "bob", "Drafts"))), (count[0] + count[1], count[2] + count[3]),
       f"{RELOADS} reloads under load: {sum(count)} messages are there")


def relative(s):
    """The folder, named from the one above it, and from inside."""
    above, name = os.path.split(s.folder)
    for where, given in ((above, name), (above, f"./{name}/"), (s.folder, "."), ("/", s.folder)):
        run = subprocess.run([binary(), "--dir", given, "status"], cwd=where, capture_output=True, text=True, check=False)
        ok(run.returncode == 0 and "store" in run.stdout, f"--dir {given}: the server is found")
    run = subprocess.run([binary(), "-c", "posthorn.conf", "config", "data_dir"], cwd=s.folder, capture_output=True, text=True, check=False)
    ok(s.folder in run.stdout, "-c posthorn.conf: the settings are those of the folder")


def main():
    with Server(config=["disable_plaintext_auth = no"]) as s:
        each_way(s)
        relative(s)
        refused(s)
        under_load(s)
        if not ok(not s.crashes(), "nothing crashed"):
            note("\n".join(s.crashes()))
    done()


main()
