"""A Posthorn of one's own for a test: fresh folder, free ports, accounts; started, stopped, killed.

    with Server(accounts=["alice", "bob"], config=["mynetworks = 127.0.0.0/8"]) as s:
        s.port("smtp"), s.password("alice"), s.command("queue", "list")

The binary is $POSTHORN (./test sets it to the one with sanitizers), or build/asan/posthorn, or ./posthorn. Ports are taken by
binding and releasing them; whoever takes one in between makes the start fail, and it is tried again.
"""
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DOMAIN = "example.test"
SERVICES = ("smtp", "lmtp", "submission", "submissions", "imap", "imaps")
START_SECONDS = 60


def binary():
    for path in (os.environ.get("POSTHORN"), os.path.join(TOP, "build/asan/posthorn"), os.path.join(TOP, "posthorn")):
        if path and os.access(path, os.X_OK):
            return path
    sys.exit("there is no posthorn to test: run make, or set POSTHORN")


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


_certificate = None


def certificate():
    """One for the whole test program: (certificate, key) in PEM."""
    global _certificate
    if not _certificate:
        folder = tempfile.mkdtemp(prefix="posthorn-cert-")
        cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                        "-subj", "/CN=mail.example.test", "-addext",
                        "subjectAltName=DNS:mail.example.test,DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert],
                       check=True, capture_output=True)
        with open(cert, encoding="ascii") as c, open(key, encoding="ascii") as k:
            _certificate = (c.read(), k.read())
        shutil.rmtree(folder)
    return _certificate


class Server:
    def __init__(self, accounts=("alice", "bob"), config=(), services=SERVICES, domain=DOMAIN, wrap=(), scheme="SHA512-CRYPT",
                 program=None):
        """`wrap`: words before the server's command line (strace ...). `scheme`: a fast one, since hashing is not what most
        tests are about."""
        self.binary = program or binary()
        self.accounts, self.config, self.services, self.domain = list(accounts), list(config), list(services), domain
        self.wrap, self.scheme = list(wrap), scheme
        self.folder = tempfile.mkdtemp(prefix="posthorn-test-")
        os.chmod(self.folder, 0o711)
        self.passwords, self.process, self.log_path = {}, None, os.path.join(self.folder, "log")
        self.ports = {}
        self.make()

    # ---- making ----

    def make(self):
        cert, key = certificate()
        self.write("cert.pem", cert)
        self.write("key.pem", key)
        os.chmod(os.path.join(self.folder, "key.pem"), 0o600)
        self.choose_ports()
        self.command_good("domain", "add", self.domain)
        for name in self.accounts:
            self.add_account(name)

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as f:
            f.write(text)

    def choose_ports(self):
        self.ports = dict(zip(self.services, free_ports(len(self.services))))
        self.write_config()

    def write_config(self):
        own = {line.split("=")[0].strip() for line in self.config}
        lines = {
            "myhostname": "mail.example.test", "data_dir": "$config_directory/data",
            "tls_cert_file": "$config_directory/cert.pem", "tls_key_file": "$config_directory/key.pem",
            "password_scheme": self.scheme, "front_processes": "2", "out_processes": "1", "filter_processes": "1",
            "lookup_processes": "1", "log_level": "debug",
        }
        text = "".join(f"{k} = {v}\n" for k, v in lines.items() if k not in own)
        text += "".join(f"listen = {s} 127.0.0.1:{p}\n" for s, p in self.ports.items())
        self.write("posthorn.conf", text + "".join(line + "\n" for line in self.config))

    def add_account(self, name):
        address = name if "@" in name else f"{name}@{self.domain}"
        self.passwords[name] = secrets.token_urlsafe(9)
        self.command_good("user", "add", address, input=self.passwords[name])

    # ---- running ----

    def start(self):
        for attempt in range(5):
            if self.try_start():
                return self
            if "in use" not in self.log():
                break
            self.choose_ports()
        raise RuntimeError("the server did not start:\n" + self.log()[-4000:])

    def try_start(self):
        read, write = os.pipe()
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            self.wrap + [self.binary, "--dir", self.folder, "start", "--ready-fd", str(write)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[write], start_new_session=True)
        os.close(write)
        log.close()
        ready = os.read(read, 1)  # ends without a byte when the server does
        os.close(read)
        if not ready:
            self.process.wait(START_SECONDS)
        return bool(ready)

    def stop(self):
        """Ends it as an administrator would; returns its exit status."""
        if not self.process:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM) if not self.wrap else self.command("stop")
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError("the server did not stop:\n" + self.log()[-4000:]) from None
        self.process = None
        return status

    def kill(self):
        """kill -9 of every process at once."""
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def roles(self):
        """[(name, pid)] of the running roles, by the supervisor's own account."""
        status = json.loads(self.command_good("status", "--json"))
        return [(r["role"], r["pid"]) for r in status["roles"]]

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        try:
            if kind:
                self.kill()
                sys.stderr.write("".join("# " + line + "\n" for line in self.log().split("\n")[-60:]))
            else:
                self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    # ---- asking ----

    def log(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def crashes(self):
        """Lines of the log that no test may cause: sanitizers, panics, roles that ended by themselves."""
        words = ("AddressSanitizer", "runtime error:", "panic:", "error role-ended", "error role-failed")
        return [line for line in self.log().split("\n") if any(w in line for w in words)]

    def port(self, service):
        return self.ports[service]

    def address(self, service):
        return f"127.0.0.1:{self.ports[service]}"

    def mail(self, name):
        return f"{name}@{self.domain}"

    def password(self, name):
        return self.passwords[name]

    def command(self, *args, input="", timeout=120):
        """(exit status, output) of the posthorn command; standard error follows standard output."""
        p = subprocess.run([self.binary, "--dir", self.folder, *args], input=input.encode(), capture_output=True, timeout=timeout)
        return p.returncode, p.stdout + p.stderr

    def command_good(self, *args, input=""):
        status, out = self.command(*args, input=input)
        if status:
            raise RuntimeError(f"posthorn {' '.join(args)}: exit status {status}: {out.decode(errors='replace')}")
        return out.decode()
