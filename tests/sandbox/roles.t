#!/usr/bin/env python3
"""Each role tries what a broken-in one would: the outcome must be the architecture's table, by the kernel's own word."""
import base64
import os
import re
import smtplib
import socket
import ssl
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import tap  # noqa: E402
from server import Server  # noqa: E402

# Larger mappings are the address sanitizer's own: terabytes that say of each byte whether it may be used, never what it is.
SHADOW = 1 << 36

FOLDERS = ("store", "directory", "trace")

# What each role may do of what is tried here; everything else must be refused. A folder's name: to make files there.
MAY = {
    "admin": {"trace"},
    "store": {"store"},
    "checkpoint": {"store"},
    "keys": set(),
    "auth": {"directory"},
    "lookup": set(),
    "filter": set(),
    "dns": {"connect", "bind"},
    "queue": set(),
    "out": {"connect"},
    "session": {"fork"},
    "front": set(),
}
# Helpers work on the files of the role that they help, as its user.
SAME_USER = {"checkpoint": "store", "lookup": "auth"}
# (who, sends which message, to whom, who is ended for it). What parses the network's bytes is not believed about others.
FORBIDDEN = (
    ("front.0", 70, "store.0", "front.0"),  # txn_envelope: recipients of its own
    ("front.0", 81, "store.0", "front.0"),  # txn_verdict: a filter of its own
    ("front.0", 93, "store.0", "front.0"),  # store_bind: an account of its own
    ("front.0", 90, "session.0", "session.0"),  # session_open: a login of its own
    ("filter.0", 70, "store.0", "filter.0"),
    ("out.0", 123, "store.0", "out.0"),  # q_outcome: queue's
    ("session.0", 72, "store.0", "session.0"),  # txn_body
    ("lookup.0", 50, "auth.0", "lookup.0"),
    ("keys.0", 42, "front.0", "front.0"),
    ("front.0", 24, "supervisor.0", "front.0"),  # a complaint about others falls back on it
)


def attempts(server, target):
    """(name, words after the role) of all that is tried; `target` is another process's id."""
    data = os.path.join(server.folder, "data")
    yield "open", ("open", "0", "/etc/passwd")
    yield "open the key", ("open", "0", os.path.join(server.folder, "key.pem"))
    yield "create", ("create", "0", "/tmp/posthorn-probe")
    for folder in FOLDERS:
        yield folder, ("create", "0", os.path.join(data, folder, "probe"))
    yield "connect", ("connect", str(server.port("smtp")))
    yield "bind", ("bind", "0")
    yield "exec", ("exec", "0", "/bin/true")
    yield "fork", ("fork",)
    yield "ptrace", ("ptrace", str(target))
    yield "signal", ("signal", str(target))
    yield "read-memory", ("read-memory", str(target))
    yield "socket", ("socket",)
    yield "mmap-exec", ("mmap-exec",)


def role_lines(server):
    """{name.index: (pid, uid, the rest of the line)} of `posthorn roles`."""
    out = {}
    for line in server.command_good("roles").splitlines():
        m = re.fullmatch(r"(\w+) +(\d+)  pid (\d+) +uid (\d+) +(.*)", line)
        out[f"{m.group(1)}.{m.group(2)}"] = (int(m.group(3)), int(m.group(4)), m.group(5))
    return out


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def has_landlock():
    import ctypes
    return ctypes.CDLL(None).syscall(444, None, 0, 1) > 0  # landlock_create_ruleset: which version?


def check_attempts(server, roles):
    for role, (pid, _, _) in roles.items():
        kind = role.split(".")[0]
        target = roles["keys.0"][0] if kind != "keys" else roles["front.0"][0]
        for name, words in attempts(server, target):
            answer = server.command_good("sandbox-probe", role, *words).strip()
            if name in MAY[kind]:
                tap.eq(answer, "done done", f"{role} may: {name}")
            else:
                tap.ok(answer in ("refused EPERM", "refused EACCES"), f"{role} may not: {name} ({answer})")
    tap.eq(role_lines(server), role_lines(server), "and all live")


def check_roles(server, roles):
    landlock = has_landlock()
    tap.eq({r.split(".")[0] for r in roles}, set(MAY), "the roles are those of the table")
    for role, (pid, uid, rest) in roles.items():
        status = status_of(pid)
        tap.eq((status["Seccomp"], status["NoNewPrivs"], status["CapEff"].strip("0") if os.getuid() == 0 else ""),
               ("2", "1", ""), f"{role}: seccomp, no new privileges, no capability: the kernel says so")
        tap.eq(int(status["Uid"].split()[0]), uid, f"{role}: its user is what `posthorn roles` says")
        tap.ok(re.match(r"seccomp, Landlock \d+  " if landlock else r"seccomp, no Landlock ", rest),
               f"{role}: the sandbox is said as it is")
        tap.ok(re.search(r"  \d+ \w+", rest), f"{role}: descriptors are counted")
        folder = f"/proc/{pid}/fd"  # root's to read: a role is not dumpable
        links = [os.readlink(os.path.join(folder, fd)) for fd in os.listdir(folder)] if os.getuid() == 0 else []
        data = [link for link in links if link.startswith(os.path.join(server.folder, "data/"))]
        tap.ok(not data or MAY[role.split(".")[0]] & set(FOLDERS), f"{role}: no descriptor of stored data but where it belongs: {data}")
    if os.getuid() == 0:
        users = {}
        for role, (_, uid, _) in roles.items():
            users.setdefault(uid, set()).add(SAME_USER.get(role.split(".")[0], role.split(".")[0]))
        tap.ok(0 not in users, "no role is root")
        tap.ok(all(len(kinds) == 1 for kinds in users.values()), f"each role has a user of its own: {users}")


# ---- the private key ----

def secrets_of(server):
    """What would betray the key in memory: its number as bytes both ways, the file's text, its DER form."""
    path = os.path.join(server.folder, "key.pem")
    der = subprocess.run(["openssl", "pkey", "-in", path, "-outform", "DER"], check=True, capture_output=True).stdout
    number = der[der.index(b"\x02\x01\x01\x04\x20") + 5:][:32]
    with open(path, encoding="ascii") as f:
        text = "".join(line.strip() for line in f if not line.startswith("-"))
    assert number in base64.b64decode(text)
    return (number, number[::-1], text[40:90].encode())


def memory_holds(pid, secrets):
    """Which of the secrets are in the process's memory."""
    found = set()
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            if "r" not in rights or line.rstrip().endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            start, end = (int(x, 16) for x in span.split("-"))
            if end - start > SHADOW:
                continue
            tail = b""
            while start < end:
                try:
                    chunk = os.pread(memory.fileno(), min(end - start, 1 << 22), start)
                except OSError:
                    break
                if not chunk:
                    break
                found |= {s for s in secrets if s in tail + chunk}
                tail, start = chunk[-64:], start + len(chunk)
    return found


def handshakes(server, n=8):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for _ in range(n):
        with socket.create_connection(("127.0.0.1", server.port("imaps")), 30) as plain:
            with context.wrap_socket(plain) as s:
                s.recv(100)


def check_key(server, roles):
    handshakes(server)
    secrets = secrets_of(server)
    if os.getuid() != 0:
        for role, (pid, _, _) in roles.items():
            try:
                open(f"/proc/{pid}/mem", "rb").close()
                good = False
            except PermissionError:
                good = True
            tap.ok(good, f"{role}: not even its own user reads its memory")
        return
    tap.ok(memory_holds(roles["keys.0"][0], secrets), "the private key is in role keys (so we know how to look for it)")
    for role, (pid, _, _) in roles.items():
        if role != "keys.0":
            tap.eq(memory_holds(pid, secrets), set(), f"the private key is not in the memory of {role}")


# ---- what a peer does not allow ----

def deliver(server):
    with smtplib.SMTP("127.0.0.1", server.port("smtp"), timeout=60) as s:
        s.sendmail("x@example.org", [server.mail("alice")], "Subject: after it\r\n\r\nStill here.\r\n")


def deliver_until_taken(server):
    """The first tries may meet the role that is being started again: a temporary refusal, never another one."""
    for _ in range(200):
        try:
            deliver(server)
            return True
        except smtplib.SMTPResponseException as e:
            if e.smtp_code >= 500:
                return False
        except smtplib.SMTPRecipientsRefused as e:
            if any(code >= 500 for code, _ in e.recipients.values()):
                return False
        except (OSError, smtplib.SMTPServerDisconnected):
            pass
    return False


def until_replaced(server, role, pid):
    for _ in range(600):
        roles = role_lines(server)
        if roles[role][0] not in (pid, 0) and roles[role][2]:
            return roles
    return role_lines(server)


def check_forbidden(server):
    for sender, number, receiver, ended in FORBIDDEN:
        before = role_lines(server)
        server.command_good("sandbox-probe", sender, "send", str(number), receiver)
        after = until_replaced(server, ended, before[ended][0])
        changed = {r for r in before if before[r][0] != after[r][0]}
        tap.eq(changed, {ended}, f"message {number} from {sender} to {receiver}: {ended} is started again, nobody else")
        if receiver != "supervisor.0":
            tap.ok(re.search(rf"{re.escape(receiver)} error peer-cut-off peer={re.escape(sender)} why=PROTOCOL\n", server.log()),
                   f"and {receiver} says that it cut off {sender}")
        tap.ok(deliver_until_taken(server), "and mail is taken")


def main():
    os.environ["POSTHORN_TEST_HOOKS"] = "1"
    with Server(accounts=["alice"]) as server:
        roles = role_lines(server)
        check_roles(server, roles)
        check_attempts(server, roles)
        check_key(server, roles)
        tap.eq({r: p for r, (p, _, _) in role_lines(server).items()}, {r: p for r, (p, _, _) in roles.items()},
               "nothing of this ended a role")
        check_forbidden(server)
        tap.eq([line for line in server.crashes() if not line.endswith(" signal=9")], [], "nothing crashed")
    del os.environ["POSTHORN_TEST_HOOKS"]
    with Server(accounts=["alice"]) as server:
        tap.eq(server.command_good("sandbox-probe", "out.0", "connect", str(server.port("smtp"))).strip(),
               "refused test hooks are off", "without the test's environment a role tries nothing")
    tap.done()


main()
