#!/bin/sh
# portable.t: fibers on the machines that this one is not. The base's tests for aarch64 run under qemu, and with ucontext for
# what has no assembly of its own (src/base/fiber.c).
set -u
cd "$(dirname "$0")/../.." || exit 1
built=${TMPDIR:-/tmp}/posthorn-portable-$$
trap 'rm -rf "$built"' EXIT
count=0 failed=0

# check NAME PROGRAM...: a test program of ours passes.
check() {
	count=$((count + 1))
	name=$1
	shift
	if "$@" >"$built/out" 2>&1 && grep -q '^ok ' "$built/out"; then
		echo "ok $count - $name: $(grep -c '^ok ' "$built/out") checks"
	else
		echo "not ok $count - $name"
		tail -n 20 "$built/out" | sed 's/^/# /'
		failed=1
	fi
}

mkdir -p "$built"
for test in base_test loop_test chan_test chan_limits_test addr_test; do
	arm=$built/arm/release/test/base/$test
	if make BUILD="$built/arm" VARIANT=release CC=aarch64-linux-gnu-gcc LIBS=-lpthread CFLAGS_release=-O2 "$arm" >"$built/make" 2>&1; then
		check "aarch64, $test" timeout 300 qemu-aarch64 -L /usr/aarch64-linux-gnu "$arm"
	else
		check "aarch64, $test builds" cat "$built/make"
	fi
done
for test in loop_test chan_test; do
	context=$built/context/asan/test/base/$test
	if make BUILD="$built/context" VARIANT=asan EXTRA_CFLAGS=-DFIBER_UCONTEXT "$context" >"$built/make" 2>&1; then
		check "ucontext, $test" timeout 300 "$context"
	else
		check "ucontext, $test builds" cat "$built/make"
	fi
done
echo "1..$count"
exit $failed
