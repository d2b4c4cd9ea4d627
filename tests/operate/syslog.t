#!/usr/bin/env python3
"""log_to = syslog: every line is a datagram to /dev/log with facility mail and its severity, of the supervisor and of roles in their
sandboxes; a log daemon that goes away stops nobody, and without one the server says so and does not start.

/dev/log is the machine's, so the server runs in a mount namespace whose /dev is the test's own. That needs root (or sudo).
"""
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import mailtools as mail  # noqa: E402
from server import Server  # noqa: E402
from tap import as_root, done, eq, note, ok  # noqa: E402

# A /dev of our own: the machine's devices bound into an empty one, and `log` a link to the test's socket.
OWN_DEV = r"""
set -e
mkdir -p "$0/dev"
mount -t tmpfs -o mode=0755 none "$0/dev"
for name in null zero full random urandom tty; do : >"$0/dev/$name"; mount --bind "/dev/$name" "$0/dev/$name"; done
for name in shm pts; do mkdir "$0/dev/$name"; [ ! -d "/dev/$name" ] || mount --rbind "/dev/$name" "$0/dev/$name"; done
ln -s /proc/self/fd "$0/dev/fd"
ln -s "$0/log.socket" "$0/dev/log"
mount --move "$0/dev" /dev
exec "$@"
"""


class Daemon:
    """Reads datagrams as syslogd does."""

    def __init__(self, folder):
        self.path, self.lines, self.changed = os.path.join(folder, "log.socket"), [], threading.Condition()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        os.chmod(self.path, 0o666)
        threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        try:
            while data := self.socket.recv(65536):
                with self.changed:
                    self.lines.append(data)
                    self.changed.notify_all()
        except OSError:
            pass  # closed

    def wait_for(self, pattern, seconds=60):
        with self.changed:
            return self.changed.wait_for(lambda: any(re.search(pattern, line) for line in self.lines), seconds)

    def close(self):
        """Its own death: the socket's name stays, and nobody listens."""
        self.socket.shutdown(socket.SHUT_RD)
        self.socket.close()


def main():
    as_root()
    folder = tempfile.mkdtemp(prefix="posthorn-syslog-")
    os.chmod(folder, 0o755)
    s = Server(config=["log_to = syslog", "log_level = info"],
               wrap=["unshare", "--mount", "--propagation", "private", "sh", "-c", OWN_DEV, folder])
    eq(s.try_start(), False, "without a log daemon it does not start")
    ok("/dev/log cannot be used" in s.log(), "... and says why")
    daemon = Daemon(folder)
    with s:
        ok(daemon.wait_for(rb"^<22>posthorn: supervisor info ready "), "the supervisor's lines arrive: mail, informational (22)")
        mail.send(s, mail.message("logged"), s.mail("alice"))
        ok(daemon.wait_for(rb"^<22>posthorn: front\.\d info smtp-accepted .*from=<me@example\.org>"), "and those of a role in its sandbox")
        pid = dict(s.roles())["filter"]
        os.kill(pid, 9)
        ok(daemon.wait_for(rb"^<19>posthorn: supervisor error role-ended role=filter"), "an error has the severity of one (19)")
        ok(daemon.wait_for(rb"^<22>posthorn: supervisor info role-ready role=filter\.0 pid=(?!%d )" % pid), "the role is back")
        mail.send(s, mail.message("logged"), s.mail("alice"))
        eq([line for line in daemon.lines if b"\n" in line or not line.startswith(b"<")], [], "each datagram is one line")
        daemon.close()
        for i in range(3):
            mail.send(s, mail.message(f"unlogged {i}"), s.mail("alice"))
        eq(len(mail.fetch_all(s, "alice")), 5, "the log daemon is gone: mail goes in and is read")
        eq(len({pid for _, pid in s.roles()} & {0}), 0, "... and all roles run")
        crashes = s.crashes() + [line for line in daemon.lines if re.search(rb"AddressSanitizer|runtime error|panic:", line)]
        if not ok(not crashes, "nothing crashed, by syslog or by standard error"):
            note("\n".join(map(str, crashes)))
    subprocess.run(["rm", "-rf", folder], check=True)
    done()


main()
