#!/usr/bin/env python3
"""TLS 1.2 and 1.3, each on every service that has TLS, from the handshake to a message stored and read; older ones are refused."""
import os
import smtplib
import socket
import ssl
import sys
import warnings

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def context(version):
    c = mail.tls_context()
    c.minimum_version = c.maximum_version = version
    return c


def smtp_client(server, service, how):
    if service == "submissions":
        return smtplib.SMTP_SSL("127.0.0.1", server.port(service), context=how, timeout=60)
    client = smtplib.SMTP("127.0.0.1", server.port(service), timeout=60)
    client.starttls(context=how)
    return client


def imap_client(server, service, how):
    if service == "imaps":
        return mail.imaplib.IMAP4_SSL("127.0.0.1", server.port(service), ssl_context=how, timeout=60)
    client = mail.imaplib.IMAP4("127.0.0.1", server.port(service), timeout=60)
    client.starttls(how)
    return client


def sends(server, service, name, version):
    data = mail.message(f"{service}-{name}", size=100000)
    with smtp_client(server, service, context(version)) as client:
        got = client.sock.version()
        if service != "smtp":
            client.login(server.mail("bob"), server.password("bob"))
        client.sendmail(server.mail("bob") if service != "smtp" else "me@example.org", [server.mail("alice")], data)
    eq(got, name, f"{service}: speaks {name}, and takes a message")
    return data


def reads(server, service, name, version, sent):
    client = imap_client(server, service, context(version))
    try:
        got = client.sock.version()
        client.login(server.mail("alice"), server.password("alice"))
        client.select("INBOX", readonly=True)
        found = [mail.without_added(p[1]) for p in client.fetch("1:*", "(BODY.PEEK[])")[1] if isinstance(p, tuple)]
    finally:
        client.shutdown()
    eq((got, all(data in found for data in sent)), (name, True),
       f"{service}: speaks {name}, and {len(found)} messages are read whole")


def old_refused(server, service):
    how = mail.tls_context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        how.minimum_version = how.maximum_version = ssl.TLSVersion.TLSv1_1
    how.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", server.port(service)), timeout=60) as plain:
        try:
            with how.wrap_socket(plain) as s:
                return s.version()
        except (ssl.SSLError, OSError) as e:
            return f"refused: {getattr(e, 'reason', e)}"


def main():
    with Server() as s:
        sent = [sends(s, service, name, version) for service in ("smtp", "submission", "submissions")
                for name, version in VERSIONS.items()]
        for service in ("imap", "imaps"):
            for name, version in VERSIONS.items():
                reads(s, service, name, version, sent)
        for service in ("submissions", "imaps"):
            answer = old_refused(s, service)
            ok("PROTOCOL_VERSION" in answer, f"{service}: TLS 1.1 is {answer}")
            mail.imap(s, "alice").logout()
        if not ok(not s.crashes(), "nothing crashed"):
            note("\n".join(s.crashes()))
    done()


main()
