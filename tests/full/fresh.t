#!/bin/bash
# fresh.t: what a newcomer sees on a machine that has nothing: Debian 12 from debootstrap, in namespaces of its own.
#
#	without root and without packages    ./start says what is missing, and makes nothing
#	./start                              packages, build, demo; the commands that it prints work when pasted; Ctrl-C stops it
#	./start as a user with sudo          the same; all roles are that user
#	README's "Install it"                on a booted systemd: users, service, mail, reload, kill -9, stop
#
# Needs root, and a mirror of Debian's packages.
set -u
cd "$(dirname "$0")/../.." || exit 1
if [ "$(id -u)" -ne 0 ]; then
	echo "Bail out! fresh.t needs root (namespaces and mounts)"
	exit 1
fi
root=$(mktemp -d "${TMPDIR:-/tmp}/posthorn-fresh.XXXXXX")
chmod 755 "$root"
count=0 failed=0 systemd=

finish() {
	[ -z "$systemd" ] || kill -9 "$systemd" 2>/dev/null
	umount "$root/proc" 2>/dev/null
	rm -rf --one-file-system "$root"
}
trap finish EXIT

# check NAME TEXT PATTERN: the text has a line like that.
check() {
	count=$((count + 1))
	if grep -qE -- "$3" <<<"$2"; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1: no line like $3 in"
		tail -n 30 <<<"$2" | sed 's/^/# /'
		failed=1
	fi
}

said=$(debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,iproute2,procps bookworm "$root" 2>&1)
check "a fresh Debian 12" "$said" 'Base system installed successfully'
[ $failed -eq 0 ] || exit 1
[ ! -d /etc/apt/apt.conf.d ] || cp -n /etc/apt/apt.conf.d/* "$root/etc/apt/apt.conf.d/"
mount -t proc proc "$root/proc"
mkdir "$root/src"
git archive HEAD | tar x -C "$root/src"
inside() { timeout 600 chroot "$root" sh -c "$1" 2>&1; }

inside 'useradd -m visitor && chown -R visitor /src' >/dev/null
said=$(inside 'cd /src && su visitor -c ./start; echo status $?; ls -d demo* 2>&1')
check "without root: the packages are named" "$said" '^packages: these packages are missing.* libssl-dev'
check "without root: exit 1" "$said" '^status 1$'
check "without root: nothing is made" "$said" "cannot access 'demo"

# demo USER PORTS FOLDER: runs ./start there as that user; its process is $job.
demo() {
	env --default-signal=INT chroot "$root" setpriv --reuid "$1" --regid "$1" --init-groups \
		env HOME="$3" sh -c "cd $3/src && exec ./start --port-base $2" >"$root/start.out" 2>&1 &
	job=$!
	for _ in $(seq 1200); do
		grep -q 'posthorn.* trace ' "$root/start.out" && break
		kill -0 $job 2>/dev/null || break
		sleep 0.5
	done
	check "./start as $1 says where it listens" "$(cat "$root/start.out")" "SMTP $(($2 + 25)) .*IMAPS $(($2 + 993))"
	sed -nE '/^ +(swaks|curl|\/.*posthorn) /p' "$root/start.out" >"$root/pasted"
	check "./start prints three commands" "$(grep -c . "$root/pasted")" '^3$'
	check "the first sends a mail" "$(paste 1)" '250 2\.0\.0 Ok'
	check "the second reads it" "$(paste 2)" '^Subject: Hello'
	check "the third shows what happened to it" "$(paste 3)" 'stored for <alice@example\.test>: INBOX'
}
paste() { inside "cd /tmp && $(sed -n "$1p" "$root/pasted")"; }
interrupt() {
	kill -INT $job
	wait $job
	check "Ctrl-C stops it" "status $?" '^status 0$'
	check "nothing listens any more" "$(paste 2)" "(refused|onnect to server)"
}

chown -R root "$root/src"
demo root 33000 ""
said=$(inside '/src/posthorn --dir /src/demo roles')
check "each role has a user of its own" "$(awk '{ print $6 }' <<<"$said" | sort -u | grep -c .)" '^(9|10)$'
interrupt
inside 'apt-get install -y -q --no-install-recommends sudo && apt-get remove -y -q swaks && echo "visitor ALL=(ALL) NOPASSWD:ALL" >/etc/sudoers.d/visitor
	mkdir /home/visitor/src && cd /src && cp -r $(ls -A | grep -v -e "^build$" -e "^demo$" -e "^posthorn$") /home/visitor/src/ && chown -R visitor /home/visitor' >/dev/null
demo visitor 34000 /home/visitor
said=$(inside '/home/visitor/src/posthorn --dir /home/visitor/src/demo roles')
check "all roles are that user" "$(awk '{ print $6 }' <<<"$said" | sort -u)" "^$(inside 'id -u visitor')$"
interrupt

said=$(inside 'cd /src && make install 2>&1; echo status $?')
check "make install" "$said" '^status 0$'
cat >"$root/boot.sh" <<'END'
set -u
mount --make-rprivate /
mount --bind "$1" "$1"
umount "$1/proc"
mount -t proc proc "$1/proc"
mount -t sysfs -o ro sysfs "$1/sys"
for d in run tmp dev sys/fs/cgroup; do mount -t tmpfs -o mode=755 tmpfs "$1/$d"; done
for d in null zero full random urandom tty; do touch "$1/dev/$d"; mount --bind /dev/$d "$1/dev/$d"; done
mkdir "$1/dev/pts" "$1/dev/shm" "$1/sys/fs/cgroup/systemd"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$1/dev/pts"
mount -t tmpfs tmpfs "$1/dev/shm"
ln -s /proc/self/fd "$1/dev/fd"
mount -t cgroup -o none,name=systemd cgroup "$1/sys/fs/cgroup/systemd" || mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$1" /lib/systemd/systemd
END
setsid unshare --pid --fork --mount --uts --ipc --net --cgroup bash "$root/boot.sh" "$root" >"$root/boot.out" 2>&1 </dev/null &
unshare_pid=$!
for _ in $(seq 60); do
	systemd=$(pgrep -P $unshare_pid -x systemd)
	[ -z "$systemd" ] || break
	sleep 0.5
done
booted() { timeout 120 nsenter -t "$systemd" --pid --mount --uts --ipc --net --cgroup --root --wd bash -c "cd /; $1" 2>&1; }
for _ in $(seq 60); do
	said=$(booted 'systemctl is-system-running')
	grep -qE 'running|degraded' <<<"$said" && break
	sleep 0.5
done
check "systemd runs" "$said" 'running|degraded'
booted 'ip link set lo up
	systemd-sysusers
	cd /etc/posthorn && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=mail.example.org -keyout key.pem -out cert.pem
	sed -i "s|^tls_cert_file.*|tls_cert_file = /etc/posthorn/cert.pem|; s|^tls_key_file.*|tls_key_file = /etc/posthorn/key.pem|" posthorn.conf' >/dev/null
said=$(booted 'posthorn check && posthorn domain add example.org && echo "correct horse battery" | posthorn user add you@example.org; echo status $?')
check "a configuration, a domain, a user" "$said" '^status 0$'
said=$(booted 'systemctl enable --now posthorn; sleep 3; systemctl is-active posthorn; ps -eo user:20,args')
check "systemctl enable --now" "$said" '^active$'
check "roles have users of their own" "$said" '^posthorn-store .*role store'
mailbox='curl -sk --user "you@example.org:correct horse battery" imaps://127.0.0.1/ -X "STATUS INBOX (MESSAGES)"'
said=$(booted "swaks --server 127.0.0.1 --from a@remote.test --to you@example.org; $mailbox")
check "mail comes in on port 25" "$said" '250 2\.0\.0 Ok'
check "and is read on port 993" "$said" 'MESSAGES 1'
said=$(booted "systemctl reload posthorn; echo status \$?; kill -9 \$(systemctl show -p MainPID --value posthorn); sleep 5; systemctl is-active posthorn; $mailbox")
check "systemctl reload" "$said" '^status 0$'
check "killed, it is started again, with all its mail" "$said" 'MESSAGES 1'
said=$(booted 'systemctl stop posthorn; systemctl is-active posthorn; ps -eo args | grep -c "^posthorn role"')
check "systemctl stop" "$said" '^inactive$'
check "leaves no process" "$said" '^0$'
echo "1..$count"
exit $failed
