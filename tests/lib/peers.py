"""Servers that are not ours, for tests: a name server (nsd), Postfix and Dovecot, on free ports of loopback, in folders of their own."""
import os
import re
import select
import shutil
import socket
import subprocess
import tempfile
import time

from server import certificate, free_ports

AS_ROOT = [] if os.getuid() == 0 else ["sudo", "-n"]


class Nsd:
    """zones: {name: text of records}; an SOA and NS are added."""

    def __init__(self, zones):
        self.folder, self.port = tempfile.mkdtemp(prefix="posthorn-nsd-"), free_ports(1)[0]
        text = (f'server:\n  ip-address: 127.0.0.1@{self.port}\n  zonesdir: "{self.folder}"\n  database: ""\n  pidfile: ""\n'
                f'  username: ""\n  chroot: ""\n  zonelistfile: "{self.folder}/zones.list"\n  xfrdfile: "{self.folder}/xfrd"\n'
                f'  cookie-secret-file: ""\n  server-count: 1\n  verbosity: 1\nremote-control:\n  control-enable: no\n')
        for name, records in zones.items():
            path = f"{self.folder}/{name}.zone"
            with open(path, "w", encoding="ascii") as f:
                f.write(f"$ORIGIN {name}.\n$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n{records}\n")
            text += f'zone:\n  name: "{name}"\n  zonefile: "{path}"\n'
        with open(f"{self.folder}/nsd.conf", "w", encoding="ascii") as f:
            f.write(text)

    def __enter__(self):
        self.process = subprocess.Popen(["nsd", "-d", "-c", f"{self.folder}/nsd.conf"], stderr=subprocess.PIPE, text=True)
        said = []
        for line in self.process.stderr:
            said.append(line)
            if "nsd started" in line:
                return self
        raise RuntimeError("nsd did not start:\n" + "".join(said))

    def __exit__(self, *args):
        self.process.terminate()
        self.process.communicate(timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)


class Postfix:
    """An instance of its own: takes mail for `domain` on a free port, and hands all of it to `relay` (host:port, TLS required) as
    the address that `aliases` {local part: address} gives it; other local parts do not exist."""

    def __init__(self, domain, aliases, relay, hostname, settings=""):
        """`settings`: further lines of main.cf."""
        self.folder, self.port = tempfile.mkdtemp(prefix="posthorn-postfix-"), free_ports(1)[0]
        os.chmod(self.folder, 0o755)
        # Apart from queue and data: what in it is not root's gets a line in the log each, and more than its socket holds before
        # anybody reads them blocks the master for ever.
        self.conf = f"{self.folder}/etc"
        os.mkdir(self.conf)
        cert, key = certificate()
        self.write("cert.pem", key + cert)
        self.write("virtual", "".join(f"{k}@{domain} {v}\n" for k, v in aliases.items()))
        self.write("etc/main.cf", f"""
compatibility_level = 3.6
queue_directory = {self.folder}/queue
data_directory = {self.folder}/data
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = {hostname}
mydestination =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = reject_unlisted_recipient, permit_mynetworks, reject
virtual_alias_domains = {domain}
virtual_alias_maps = texthash:{self.folder}/virtual
local_transport = error:no local mail
alias_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relayhost = [{relay.rpartition(':')[0]}]:{relay.rpartition(':')[2]}
smtp_tls_security_level = encrypt
smtp_host_lookup = native
smtp_dns_support_level = disabled
smtpd_tls_security_level = may
smtpd_tls_chain_files = {self.folder}/cert.pem
smtpd_tls_received_header = yes
smtpd_tls_loglevel = 1
smtp_tls_loglevel = 1
maillog_file = {self.folder}/log
maillog_file_prefixes = {self.folder}
minimal_backoff_time = 1s
queue_run_delay = 1s
{settings}
""")
        self.write("etc/master.cf", f"""
127.0.0.1:{self.port} inet n - n - - smtpd
pickup    unix  n - n 60  1 pickup
cleanup   unix  n - n -   0 cleanup
qmgr      unix  n - n 1   1 qmgr
tlsmgr    unix  - - n 300 1 tlsmgr
rewrite   unix  - - n -   - trivial-rewrite
bounce    unix  - - n -   0 bounce
defer     unix  - - n -   0 bounce
trace     unix  - - n -   0 bounce
flush     unix  n - n 300 0 flush
proxymap  unix  - - n -   - proxymap
smtp      unix  - - n -   - smtp
relay     unix  - - n -   - smtp
error     unix  - - n -   - error
retry     unix  - - n -   - error
discard   unix  - - n -   - discard
anvil     unix  - - n -   1 anvil
scache    unix  - - n -   1 scache
postlog   unix-dgram n - n - 1 postlogd -o max_use=1000000 -o max_idle=1d
""")

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="ascii") as f:
            f.write(text)

    def run(self, *words):
        p = subprocess.run(AS_ROOT + list(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True, timeout=60, check=False)
        if p.returncode:
            raise RuntimeError(f"{' '.join(words)}: {p.stdout}\n{self.log()}")
        return p.stdout

    def __enter__(self):
        for name in ("queue", "data"):
            os.mkdir(f"{self.folder}/{name}")
        self.run("chown", "root:root", self.conf, f"{self.conf}/main.cf", f"{self.conf}/master.cf")
        self.run("chown", "postfix", f"{self.folder}/data")
        # The log is a datagram socket that takes 10 by default, and `master` waits in it for the process that it alone can start.
        room = "/proc/sys/net/unix/max_dgram_qlen"
        with open(room, encoding="ascii") as f:
            before = f.read().strip()
        self.run("sh", "-c", f"echo 1000 >{room} || true")
        self.run("postfix", "-c", self.conf, "start")  # returns when it listens
        self.run("sh", "-c", f"echo {before} >{room} || true")
        return self

    def __exit__(self, *args):
        self.run("postfix", "-c", self.conf, "stop")
        self.run("rm", "-rf", self.folder)

    def log(self):
        try:
            return self.run("cat", f"{self.folder}/log") if os.path.exists(f"{self.folder}/log") else ""
        except RuntimeError as e:
            return str(e)

    def log_has(self, pattern):
        return bool(re.search(pattern, self.log()))

    def wait_for_log(self, good, seconds=60):
        """Until good(the log's text). Postfix tells nobody when it wrote, so this looks ten times a second."""
        end, text = time.monotonic() + seconds, self.log()
        while not good(text) and time.monotonic() < end:
            select.select([], [], [], 0.1)
            text = self.log()
        return good(text)


class Dovecot:
    """LMTP at the socket `lmtp`, where every address has a mailbox, and SASL at the socket
    `auth` for `passwords` {name: password}."""

    def __init__(self, passwords):
        self.folder, self.process = tempfile.mkdtemp(prefix="posthorn-dovecot-"), None
        os.chmod(self.folder, 0o755)
        self.lmtp, self.auth, self.log_path = (os.path.join(self.folder, name) for name in ("lmtp", "auth", "log"))
        # Dovecot serves no mail to root.
        uid, gid = (os.getuid(), os.getgid()) if os.getuid() else (65534, 65534)
        self.write("passwords", "".join(f"{k}:{{PLAIN}}{v}\n" for k, v in passwords.items()))
        self.write("dovecot.conf", f"""
base_dir = {self.folder}/run
state_dir = {self.folder}/run
log_path = {self.log_path}
instance_name = posthorn-test
protocols = lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
mail_uid = {uid}
mail_gid = {gid}
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:{self.folder}/mail/%u
passdb {{
  driver = passwd-file
  args = {self.folder}/passwords
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={self.folder}/mail/%u allow_all_users=yes
}}
service lmtp {{
  unix_listener {self.lmtp} {{
    mode = 0666
  }}
}}
service auth {{
  unix_listener {self.auth} {{
    mode = 0666
  }}
}}
""")
        os.mkdir(f"{self.folder}/mail")
        if os.getuid() == 0:
            os.chown(f"{self.folder}/mail", uid, gid)

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="ascii") as f:
            f.write(text)

    def __enter__(self):
        self.process = subprocess.Popen(AS_ROOT + ["dovecot", "-F", "-c", f"{self.folder}/dovecot.conf"], stdin=subprocess.DEVNULL)
        end = time.monotonic() + 60
        # It tells nobody when it listens, so this looks ten times a second.
        while not self.listens() and time.monotonic() < end and self.process.poll() is None:
            select.select([], [], [], 0.1)
        if not self.listens():
            raise RuntimeError("dovecot did not start:\n" + self.log())
        return self

    def listens(self):
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(self.lmtp) == 0

    def __exit__(self, *args):
        subprocess.run(AS_ROOT + ["dovecot", "-c", f"{self.folder}/dovecot.conf", "stop"], check=False, timeout=60)
        self.process.wait(60)
        subprocess.run(AS_ROOT + ["rm", "-rf", self.folder], check=False)

    def log(self):
        p = subprocess.run(AS_ROOT + ["cat", self.log_path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return p.stdout

    def mails(self, address):
        """What is in the mailbox of an address, as Dovecot stored it."""
        p = subprocess.run(AS_ROOT + ["sh", "-c", 'for f in "$1"/new/*; do [ -f "$f" ] && cat "$f" && printf "\\0"; done', "sh",
                                      f"{self.folder}/mail/{address}"], stdout=subprocess.PIPE, check=False)
        return [m for m in p.stdout.split(b"\0") if m]
