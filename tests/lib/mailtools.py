"""What the tests with real clients have in common: messages, sending, fetching, comparing."""
import imaplib
import re
import secrets
import smtplib
import ssl
import subprocess

ADDED = re.compile(rb"\A(?:(?:Return-Path|Delivered-To|Received|X-Spam-[A-Za-z-]+|Authentication-Results):[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)+")


def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def message(subject, size=2000, sender="me@example.org", to="alice@example.test"):
    """Bytes with lines of many kinds: dots in front, long ones, trailing blanks, 8-bit, an empty last one."""
    head = (f"From: <{sender}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nMessage-ID: <{secrets.token_hex(12)}@example.org>\r\n"
            "Date: Sun, 22 Nov 2026 03:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
            "Content-Transfer-Encoding: 8bit\r\n\r\n").encode()
    lines = [b".", b"..", b".hidden", b"ends with blanks   ", b"", b"\ttab", "Gr\u00fc\u00dfe".encode(), b"x" * 990, b"From the start", b""]
    whole = b"".join(line + b"\r\n" for line in lines)
    body, i = whole * (size // len(whole)), 0
    while len(body) < size:
        body += lines[i] + b"\r\n"
        i += 1
    return head + body


def without_added(data):
    """The message as it was sent: what servers put before it taken off."""
    return ADDED.sub(b"", data, 1)


def send(server, data, to, sender="me@example.org", service="smtp", user=None):
    """By smtplib; raises what it raises."""
    if service == "submissions":
        client = smtplib.SMTP_SSL("127.0.0.1", server.port(service), context=tls_context(), timeout=60)
    elif service == "lmtp":
        client = smtplib.LMTP("127.0.0.1", server.port(service))
    else:
        client = smtplib.SMTP("127.0.0.1", server.port(service), timeout=60)
    with client:
        if service == "submission":
            client.starttls(context=tls_context())
        if user:
            client.login(server.mail(user), server.password(user))
        return client.sendmail(sender, [to] if isinstance(to, str) else to, data)


def imap(server, user, service="imaps"):
    if service == "imaps":
        client = imaplib.IMAP4_SSL("127.0.0.1", server.port("imaps"), ssl_context=tls_context(), timeout=60)
    else:
        client = imaplib.IMAP4("127.0.0.1", server.port("imap"), timeout=60)
        client.starttls(tls_context())
    client.login(server.mail(user), server.password(user))
    return client


def fetch_all(server, user, mailbox="INBOX"):
    """{uid: bytes} of a mailbox."""
    client = imap(server, user)
    try:
        status, answer = client.select(f'"{mailbox}"', readonly=True)
        if status != "OK":
            raise RuntimeError(answer)
        if int(answer[0]) == 0:
            return {}
        status, parts = client.uid("FETCH", "1:*", "(UID BODY.PEEK[])")
        if status != "OK":
            raise RuntimeError(parts)
        found = {}
        for part in parts:
            if isinstance(part, tuple):
                found[int(re.search(rb"UID (\d+)", part[0]).group(1))] = part[1]
        return found
    finally:
        client.logout()


def wait_for_mail(server, user, count, mailbox="INBOX", seconds=60):
    """IDLE until the mailbox has so many messages; returns them. No polling: the server says so."""
    client = imap(server, user)
    client.sock.settimeout(seconds)
    try:
        status, answer = client.select(f'"{mailbox}"')
        have = int(answer[0])
        client.send(b"w1 IDLE\r\n")
        while have < count:
            line = client.readline()
            if not line:
                raise RuntimeError("the server closed the connection")
            m = re.match(rb"\* (\d+) EXISTS", line)
            if m:
                have = int(m.group(1))
        client.send(b"DONE\r\n")
        while not client.readline().startswith(b"w1 "):
            pass
    finally:
        client.shutdown()
    return fetch_all(server, user, mailbox)


def run(*words, input=b"", env=None, timeout=120):
    """(exit status, standard output and error as bytes)."""
    p = subprocess.run(words, input=input, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, timeout=timeout, check=False)
    return p.returncode, p.stdout
