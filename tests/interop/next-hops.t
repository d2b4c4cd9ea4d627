#!/usr/bin/env python3
"""Next hops as a small site has them: mail for some domains goes to Dovecot over LMTP at a UNIX socket (transport_maps), and all
other mail to a relay that asks for a login (relayhost, smtp_sasl_password_maps): Postfix, whose SASL is Dovecot's."""
import os
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from peers import Dovecot, Nsd, Postfix  # noqa: E402
from server import Server, free_ports  # noqa: E402
from tap import done, eq, note, ok  # noqa: E402

PASSWORD = "blanks, = and /"


def submit(s, to, subject, size=2000):
    data = mail.message(subject, size=size, sender=s.mail("alice"), to=str(to))
    eq(mail.send(s, data, to, sender=s.mail("alice"), service="submission", user="alice"), {}, f"{subject}: submitted")
    return data


def emptied(s):
    """Until the queue is empty; each look is a command, so few are needed."""
    for _ in range(600):
        text = s.command_good("queue", "list")
        if text == "The queue is empty.\n":
            return text
        mail.imap(s, "alice").logout()
    return text


def reply_of(s):
    """What the last attempt said, once there was one."""
    for _ in range(600):
        text = s.command_good("queue", "list")
        if "attempts: " in text and "being delivered" not in text:
            return text
        mail.imap(s, "alice").logout()
    return text


def lmtp(s, dovecot):
    to = ["one@lists.test", "two@lists.test"]
    for subject, size in (("small", 100), ("large", 300000)):
        data = submit(s, to, f"over LMTP, {subject}", size)
        eq(emptied(s), "The queue is empty.\n", "... and delivered")
        for address in to:
            found = [m for m in dovecot.mails(address) if f"over LMTP, {subject}".encode() in m]
            eq(len(found), 1, f"{address} has it once")
            eq(mail.without_added(found[0].replace(b"\n", b"\r\n")), data, "... the same to the byte")
    ok("remote=" + dovecot.lmtp in s.log(), "the log names the socket")


def no_socket(s):
    submit(s, "x@gone.test", "no such socket")
    ok("cannot be reached, or nobody listens there" in reply_of(s), "a socket that is not there is a deferral")
    s.command_good("queue", "delete", "ALL")


def login(s, postfix):
    data = submit(s, "bob@remote.test", "through the relay")
    found = mail.wait_for_mail(s, "bob", 1)
    eq(mail.without_added(found[max(found)]), data, "it came back through the relay")
    ok(postfix.log_has(r"sasl_method=PLAIN, sasl_username=alice@relay"), "the relay knew who sent it")
    ok(not any(PASSWORD in text for text in (s.log(), s.command_good("config"))), "the password is told nowhere")


def wrong_login(s, postfix, path):
    for password, why in (("wrong", "535"), (None, "554")):
        with open(path, "w", encoding="ascii") as f:
            f.write(f"[localhost]:{postfix.port} alice@relay:{password}\n" if password else "# nothing\n")
        s.command_good("reload")
        submit(s, "bob@remote.test", f"refused {why}")
        if password:
            ok(f" {why} " in reply_of(s), "a login that fails is a deferral, in the relay's words")
            s.command_good("queue", "delete", "ALL")
        else:
            found = mail.wait_for_mail(s, "alice", 1)
            ok(f"{why} 5.7.1".encode() in found[max(found)], "without a login the relay's refusal comes back")
    with open(path, "w", encoding="ascii") as f:
        f.write("[localhost]:1\n")
    s.command("reload")
    ok("relay-logins-refused" in s.log(), "a file that is no table is named in the log")


def certificate_is_checked(s, postfix, path, roots):
    with open(path, "w", encoding="ascii") as f:
        f.write(f"[localhost]:{postfix.port} alice@relay:{PASSWORD}\n")
    s.config = [line for line in s.config if not line.startswith("smtp_tls_CAfile")] + [f"smtp_tls_CAfile = {roots}"]
    s.write_config()
    s.command_good("reload")
    logins = len(postfix.log().split("sasl_username=alice@relay"))
    submit(s, "bob@remote.test", "to an impostor")
    ok("TLS handshake" in reply_of(s), "a relay whose certificate leads elsewhere gets no mail")
    eq(len(postfix.log().split("sasl_username=alice@relay")), logins, "... and no password")
    s.command_good("queue", "delete", "ALL")


def stories(s, postfix, dovecot, path):
    try:
        lmtp(s, dovecot)
        no_socket(s)
        login(s, postfix)
        wrong_login(s, postfix, path)
        certificate_is_checked(s, postfix, path, "/etc/ssl/certs/ca-certificates.crt")
    except Exception as e:  # what the servers said is worth more than the trace of Python
        ok(False, f"{type(e).__name__}: {e}")
        note(postfix.log()[-4000:])
        note(dovecot.log()[-4000:])
        note(s.log()[-6000:])
    eq(s.crashes(), [], "no role crashed")


def main():
    smtp = free_ports(1)[0]
    with Nsd({"example.test": "mail A 127.0.0.1\n", "test": ""}) as nsd, Dovecot({"alice@relay": PASSWORD}) as dovecot, \
            Postfix("remote.test", {"bob": "bob@example.test"}, f"127.0.0.1:{smtp}", "relay.test", f"""
mynetworks =
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {dovecot.auth}
smtpd_tls_auth_only = yes
""") as postfix:
        s = Server(services=("submission", "imap", "imaps"),
                   config=[f"listen = smtp 127.0.0.1:{smtp}", f"dns_servers = 127.0.0.1:{nsd.port}",
                           f"relayhost = [localhost]:{postfix.port}",
                           f"transport_maps = inline:{{ {{lists.test = lmtp:unix:{dovecot.lmtp}}}, "
                           f"{{gone.test = lmtp:unix:{dovecot.folder}/nothing}} }}",
                           "smtp_sasl_password_maps = $config_directory/relays", "smtp_tls_CAfile = $config_directory/cert.pem"])
        path = os.path.join(s.folder, "relays")
        s.write("relays", f"# relays\n[localhost]:{postfix.port}\talice@relay:{PASSWORD}\n")
        with s:
            stories(s, postfix, dovecot, path)
    done()


main()
