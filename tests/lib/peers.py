"""Servers that are not ours, for tests: a name server (nsd) and Postfix, on free ports of loopback, in folders of their own."""
import os
import re
import select
import shutil
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

    def __init__(self, domain, aliases, relay, hostname):
        self.folder, self.port = tempfile.mkdtemp(prefix="posthorn-postfix-"), free_ports(1)[0]
        os.chmod(self.folder, 0o755)
        cert, key = certificate()
        self.write("cert.pem", key + cert)
        self.write("virtual", "".join(f"{k}@{domain} {v}\n" for k, v in aliases.items()))
        self.write("main.cf", f"""
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
""")
        self.write("master.cf", f"""
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
postlog   unix-dgram n - n - 1 postlogd
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
        self.run("chown", "root:root", f"{self.folder}/main.cf", f"{self.folder}/master.cf")
        self.run("chown", "postfix", f"{self.folder}/data")
        self.run("postfix", "-c", self.folder, "start")  # returns when it listens
        return self

    def __exit__(self, *args):
        self.run("postfix", "-c", self.folder, "stop")
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
