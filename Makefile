# Posthorn. `make` builds ./posthorn; `make check` builds with sanitizers and runs the unit tests;
# see `make help`.
#
# A module is a folder below src/. USES_x names the modules that x may use: x is compiled with an
# include path that holds these alone, and its tests are linked with these alone, so a dependency
# in the wrong direction does not build.

MODULES := base text net conf mime store auth filter queue smtp imap roles tools

USES_base   :=
USES_text   := base
USES_net    := base text
USES_conf   := base text
USES_mime   := base text
USES_store  := base text net mime conf
USES_auth   := base text net mime conf
USES_filter := base text net mime conf
USES_queue  := base text net mime conf store auth filter
USES_smtp   := base text net mime conf store auth filter queue
USES_imap   := base text net mime conf store auth filter queue
USES_roles  := base text net mime conf store auth filter queue smtp imap
USES_tools  := base text net mime conf store auth filter queue smtp imap roles

VARIANT ?= release
BUILD   ?= build
# The simulator takes the place of base/os_linux_*.c and more: docs/SIMULATOR.md.
ifeq ($(VARIANT),sim)
MODULES += sim
endif
USES_sim    := base text net mime conf store auth filter queue smtp imap roles

B       := $(BUILD)/$(VARIANT)
CC      := gcc
PREFIX  ?= /usr/local
SYSCONFDIR ?= /etc
VERSION := $(shell cat VERSION)

WARN := -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wvla -Wformat=2 -Wcast-qual \
	-Wcast-align -Wstrict-prototypes -Wmissing-prototypes -Wmissing-declarations -Wundef \
	-Wimplicit-fallthrough -Werror
HARDEN := -fno-omit-frame-pointer -fstack-protector-strong -fno-strict-aliasing -fno-common \
	-fno-delete-null-pointer-checks -fvisibility=hidden -fPIE
CFLAGS_all := -std=c17 -D_GNU_SOURCE -g $(HARDEN) $(WARN) -DPOSTHORN_VERSION='"$(VERSION)"' -MMD -MP
LIBS := -lssl -lcrypto -llmdb -lsqlite3 -lunbound -largon2 -lcrypt -lidn2 -lunistring -lz -lzstd -lpthread
LDFLAGS_all := -pie -Wl,-z,relro,-z,now,-z,noexecstack,--as-needed

BRANCHES_x86_64 := -fcf-protection=full
BRANCHES_aarch64 := -mbranch-protection=standard
MACHINE := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
CFLAGS_release := -O2 -D_FORTIFY_SOURCE=3 -fstack-clash-protection $(BRANCHES_$(MACHINE)) \
	-ftrivial-auto-var-init=zero -Wframe-larger-than=10240
CFLAGS_asan := -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined
LDFLAGS_asan := -fsanitize=address,undefined
CFLAGS_cov := -O0 --coverage
LDFLAGS_cov := --coverage
CFLAGS_fuzz := -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined \
	-Wno-unused-command-line-argument
LDFLAGS_fuzz := -fsanitize=fuzzer,address,undefined
ifeq ($(VARIANT),sim)
WRAPPED := malloc calloc realloc reallocarray free strdup strndup posix_memalign aligned_alloc \
	open open64 close read write writev pread pread64 pwrite pwrite64 lseek ftruncate ftruncate64 fdatasync fsync unlink \
	access stat stat64 lstat64 fstat64 __fxstat fstatfs mmap mmap64 munmap msync madvise getpid fcntl fcntl64 \
	gettimeofday time usleep sleep getcwd readlink fchmod fchown pthread_mutex_init pthread_mutex_destroy \
	pthread_mutex_lock pthread_mutex_unlock pthread_mutex_consistent \
	sqlite3_open_v2 sqlite3_close sqlite3_vfs_register sqlite3_vfs_unregister iconv_open iconv_close \
	OSSL_LIB_CTX_new OSSL_LIB_CTX_free BIO_get_new_index
CFLAGS_sim := -O2 -DPOSTHORN_SIM -fsanitize=undefined -fno-sanitize-recover=undefined
LDFLAGS_sim = -fsanitize=undefined $(EXTRA_CFLAGS) $(WRAPPED:%=-Wl,--wrap=%) -Wl,--whole-archive $(B)/libsim.a -Wl,--no-whole-archive
LIBS := $(patsubst -lsqlite3,-l:libsqlite3.a -lm,$(patsubst -llmdb,-l:liblmdb.a,$(LIBS)))
endif
ifeq ($(VARIANT),fuzz)
CC := clang-14
WARN += -Wno-gnu-zero-variadic-macro-arguments
endif

CFLAGS := $(CFLAGS_all) $(CFLAGS_$(VARIANT)) $(EXTRA_CFLAGS)
LDFLAGS := $(LDFLAGS_all) $(LDFLAGS_$(VARIANT))

# The sources of each module; *_test.c and *_fuzz.c are programs of their own.
all_of   = $(wildcard src/$(1)/*.c src/$(1)/*.S)
srcs_of  = $(filter-out %_test.c %_fuzz.c src/tools/main.c src/sim/main.c,$(call all_of,$(1)))
objs_of  = $(patsubst src/%,$(B)/obj/%.o,$(call srcs_of,$(1)))
tests_of = $(patsubst src/%.c,$(B)/test/%,$(wildcard src/$(1)/*_test.c))
fuzz_of  = $(patsubst src/%.c,$(B)/fuzz/%,$(wildcard src/$(1)/*_fuzz.c))

TESTS := $(foreach m,$(filter-out $(if $(filter sim,$(VARIANT)),$(MODULES:sim=)),$(MODULES)),$(call tests_of,$(m)))
FUZZERS := $(foreach m,$(MODULES),$(call fuzz_of,$(m)))

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all posthorn check tests unit fuzz fuzzers sim lint bench install clean help

all: $(B)/posthorn
ifeq ($(B),build/release)
	@ln -sf $(B)/posthorn posthorn
endif

help:
	@echo "make            the release build: ./posthorn"
	@echo "make check      unit tests with AddressSanitizer and UBSan"
	@echo "make sim        power cuts in the simulator, shortly; SIM=ARGUMENTS (docs/SIMULATOR.md)"
	@echo "make lint       the house rules: layers, banned functions, sizes, documents"
	@echo "make fuzz       every fuzzer, SECONDS_EACH seconds each (default 20)"
	@echo "make bench      measure; see docs/PERFORMANCE.md"
	@echo "make install    DESTDIR= PREFIX=$(PREFIX) SYSCONFDIR=$(SYSCONFDIR)"
	@echo "VARIANT=release|asan|fuzz|cov chooses the build"

# What a module sees: itself and what it uses.
define module_rules
$(B)/view/$(1)/.made: Makefile
	@mkdir -p $$(@D) && cd $$(@D) && for u in $(1) $(USES_$(1)); do ln -sfn $(CURDIR)/src/$$$$u $$$$u; done
	@touch $$@

$(B)/obj/$(1)/%.c.o: src/$(1)/%.c $(B)/view/$(1)/.made
	@mkdir -p $$(@D)
	@echo CC $$<
	@$(CC) $(CFLAGS) -iquote $(B)/view/$(1) -c -o $$@ $$<

$(B)/obj/$(1)/%.S.o: src/$(1)/%.S $(B)/view/$(1)/.made
	@mkdir -p $$(@D)
	@echo CC $$<
	@$(CC) $(CFLAGS) -iquote $(B)/view/$(1) -c -o $$@ $$<

$(B)/lib$(1).a: $(call objs_of,$(1))
	@mkdir -p $$(@D)
	@rm -f $$@ && ar rcsD $$@ $$^

$(B)/test/$(1)/%: $(B)/obj/$(1)/%.c.o $(foreach u,$(1) $(USES_$(1)),$(B)/lib$(u).a)
	@mkdir -p $$(@D)
	@echo LD $$(notdir $$@)
	@$(CC) $(LDFLAGS) -o $$@ $$< -Wl,--start-group $(foreach u,$(1) $(USES_$(1)),$(B)/lib$(u).a) -Wl,--end-group $(LIBS)

$(B)/fuzz/$(1)/%: $(B)/obj/$(1)/%.c.o $(foreach u,$(1) $(USES_$(1)),$(B)/lib$(u).a)
	@mkdir -p $$(@D)
	@echo LD $$(notdir $$@)
	@$(CC) $(LDFLAGS) -o $$@ $$< -Wl,--start-group $(foreach u,$(1) $(USES_$(1)),$(B)/lib$(u).a) -Wl,--end-group $(LIBS)
endef
$(foreach m,$(MODULES),$(eval $(call module_rules,$(m))))

LIBS_OURS := $(foreach m,$(MODULES),$(B)/lib$(m).a)

# The asan build of the server alone: its system calls pass tests/os_fault.c, which can make them fail.
ifeq ($(VARIANT),asan)
FAULTS := $(B)/tests/os_fault.o
FAULT_CALLS := openat renameat linkat unlinkat mkdirat read pread write pwrite pwritev ftruncate fallocate fsync fdatasync \
	memfd_create eventfd epoll_create1 epoll_wait socket socketpair accept4 recv send recvmsg sendmsg recvmmsg
endif
$(B)/tests/os_fault.o: tests/os_fault.c Makefile
	@mkdir -p $(@D)
	@echo CC $<
	@$(CC) $(CFLAGS) -c -o $@ $<

$(B)/posthorn: $(B)/obj/tools/main.c.o $(LIBS_OURS) $(FAULTS)
	@echo LD $@
	@$(CC) $(LDFLAGS) -o $@ $< $(FAULTS) $(FAULT_CALLS:%=-Wl,--wrap=%) -Wl,--start-group $(LIBS_OURS) -Wl,--end-group $(LIBS)

$(B)/posthorn-sim: $(B)/obj/sim/main.c.o $(LIBS_OURS)
	@echo LD $@
	@$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(LIBS_OURS) -Wl,--end-group $(LIBS)

# Behind tests/vectors/mime-dovecot.
$(B)/tests/mime-dump: tests/mime-dump.c $(B)/view/mime/.made $(foreach u,mime text base,$(B)/lib$(u).a)
	@mkdir -p $(@D)
	@echo LD $(notdir $@)
	@$(CC) $(CFLAGS) $(LDFLAGS) -iquote $(B)/view/mime -o $@ $< $(foreach u,mime text base,$(B)/lib$(u).a) $(LIBS)

# Behind tests/full/trace.t.
$(B)/tests/trace-fill: tests/trace-fill.c $(B)/view/roles/.made $(LIBS_OURS)
	@mkdir -p $(@D)
	@echo LD $(notdir $@)
	@$(CC) $(CFLAGS) $(LDFLAGS) -iquote $(B)/view/roles -o $@ $< -Wl,--start-group $(LIBS_OURS) -Wl,--end-group $(LIBS)

# Unit tests; T=src/text narrows them to a folder or a file's beginning.
tests: $(filter $(B)/test/$(T:src/%=%)%,$(TESTS))
check:
	@$(MAKE) --no-print-directory VARIANT=asan tests T=$(T)
	@prove -e 'timeout 300' $(patsubst $(BUILD)/$(VARIANT)/%,$(BUILD)/asan/%,$(filter $(B)/test/$(T:src/%=%)%,$(TESTS)))

fuzzers: $(filter $(B)/fuzz/$(T:src/%=%)%,$(FUZZERS))
SECONDS_EACH ?= 20
fuzz:
	@$(MAKE) --no-print-directory VARIANT=fuzz fuzzers T=$(T)
	@tests/fuzz-run $(SECONDS_EACH) $(patsubst $(BUILD)/$(VARIANT)/%,$(BUILD)/fuzz/%,$(filter $(B)/fuzz/$(T:src/%=%)%,$(FUZZERS)))

sim:
	@$(MAKE) --no-print-directory VARIANT=sim $(BUILD)/sim/posthorn-sim tests
	@$(if $(SIM),,prove -e 'timeout 300' $(patsubst src/%.c,$(BUILD)/sim/test/%,$(wildcard src/sim/*_test.c)))
	@$(BUILD)/sim/posthorn-sim $(SIM)

lint:
	@tests/lint

bench: all
	@bench/run

install: all
	@PREFIX=$(PREFIX) SYSCONFDIR=$(SYSCONFDIR) DESTDIR=$(DESTDIR) dist/install-files $(B)/posthorn

clean:
	rm -rf build posthorn

-include $(shell find $(B) -name '*.d' 2>/dev/null)
