/* What happens in the run of one seed.
 *
 * Clients work all the time. The driver draws, again and again, a time or a file operation at which
 * the power goes, and before it lesser faults: a role is killed, a sync fails, connections are
 * reset, nothing gets through, the disk fills. After a cut the disk is looked at (on a copy), the
 * server starts, is sometimes cut again while it recovers, and the clients compare what they find
 * with what they were told. At the end everybody is kind: what is owed must arrive, the queue must
 * run empty, and the ledger is closed.
 *
 * Some seeds have no cuts but bursts of work with silence in between, after each of which the roles
 * must hold as much as after the one before: descriptors and memory do not leak. */
#include "sim/plan.h"

#include "imap/account.h"
#include "sim/check_disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	SENDERS = 2,
	CLIENTS_MAX = 1 + SENDERS + 2 * WORLD_ACCOUNTS,
	SETTLE_SECONDS = 1800, /* simulated; back-off of the queue and of roles included */
	SILENCE_SECONDS = 120,
	BURSTS = 5,
	BURSTS_COMPARED = 4, /* the last ones */
	BURST_SECONDS = 12,
	USAGE_MAX = 256,
	/* From each burst to the next a role may grow by so much: LMDB keeps the pages of its
	 * largest transaction, buffers the room of the largest message. */
	GROWTH_BYTES = 48 * 1024,
	/* Of files a session keeps its segments' open, the store some; a role has a few others. */
	FILES_MAX = IMAP_SEGMENTS_MAX + 8,
	DISK_BYTES = 512 * 1024 * 1024,
	PASSWORD_SIZE = 8,
};

struct plan {
	const struct plan_options *options;
	struct plan_result *result;
	struct sim *sim;
	struct world world;
	struct client clients[CLIENTS_MAX], admin;
	unsigned n;
	struct chance chance;
	bool is_low; /* the disk was made small */
	uint64_t limit;
};

static const char password[PASSWORD_SIZE] = "secret1";

static void on_trace(void *arg, const char *line)
{
	struct plan *p = arg;

	sim_trace(p->sim, "%s", line);
}

static unsigned below(struct plan *p, unsigned n)
{
	return chance_below(&p->chance, n);
}

static void disturb(struct plan *p, enum disturbance_kind kind)
{
	world_disturb(&p->world, kind, sim_now(p->sim));
}

static void client_add(struct plan *p, const char *name, unsigned number,
		       void (*run)(struct client *))
{
	struct client *c = &p->clients[p->n++];

	*c = (struct client){ .world = &p->world,
			      .number = number,
			      .chance = { p->options->seed * 1000003 + p->n },
			      .run = run };
	snprintf(c->name, sizeof(c->name), "%s-%u", name, number);
	(void)sim_spawn(p->sim, SIM_OUTSIDE, c->name, client_main, c);
}

/* The administrator's machine is the server's: a new process after each start of it. */
static void boot(struct plan *p)
{
	struct client *c = &p->admin;

	sim_boot(p->sim);
	*c = (struct client){ .world = &p->world,
			      .chance = { chance_next(&p->chance) },
			      .run = client_admin_run };
	snprintf(c->name, sizeof(c->name), "administrator");
	(void)sim_spawn(p->sim, SIM_SERVER, c->name, client_main, c);
}

static void clients_start(struct plan *p)
{
	client_add(p, "remote", 0, client_remote_run);
	for (unsigned i = 0; i < SENDERS; i++)
		client_add(p, "sender", i, client_smtp_run);
	for (unsigned i = 0; i < WORLD_ACCOUNTS; i++) {
		client_add(p, "writer", i, client_imap_run);
		client_add(p, "watcher", i, client_watch_run);
	}
}

static bool address(const char *ip, unsigned port, struct addr *out)
{
	char text[64];

	snprintf(text, sizeof(text), "%s:%u", ip, port);
	return addr_parse(str_from_c(text), out) == ERR_OK;
}

static void world_start(struct plan *p)
{
	struct endpoints *at = &p->world.at;

	world_init(&p->world, p->options->seed);
	p->world.trace = on_trace;
	p->world.trace_arg = p;
	snprintf(at->control, sizeof(at->control), "%s/control", SIM_DATA_DIR);
	if (!address(SIM_SERVER_IP, SIM_PORT_SMTP, &at->smtp) ||
	    !address(SIM_SERVER_IP, SIM_PORT_LMTP, &at->lmtp) ||
	    !address(SIM_SERVER_IP, SIM_PORT_SUBMISSION, &at->submission) ||
	    !address(SIM_SERVER_IP, SIM_PORT_IMAP, &at->imap) ||
	    !address(SIM_REMOTE_IP, 25, &at->remote))
		panic("sim: an address of sim.h is none");
	for (unsigned i = 0; i < WORLD_ACCOUNTS; i++)
		snprintf(p->world.accounts[i].password, sizeof(p->world.accounts[i].password), "%s",
			 password);
}

/* ---- faults ---- */

static void role_kill(struct plan *p, const char *role)
{
	if (!sim_kill(p->sim, role, below(p, 2)) && !sim_kill(p->sim, role, 0))
		return;
	disturb(p, strcmp(role, "out") == 0 ? DISTURB_KILL_OUT : DISTURB_KILL_OTHER);
}

static const char *role_draw(struct plan *p)
{
	static const char *const roles[] = { "store",	   "queue",  "out",    "auth",
					     "session",	   "front",  "filter", "session+",
					     "checkpoint", "lookup", "dns",    "admin" };

	return roles[below(p, ARRAY_LEN(roles))];
}

static void disk_low(struct plan *p)
{
	/* So much is left that some things still fit. */
	p->limit = sim_disk_used(p->sim) + below(p, 4 * 1024 * 1024);
	sim_disk_limit(p->sim, p->limit);
	p->world.is_full = p->is_low = true;
	disturb(p, DISTURB_DISK);
}

static void disk_high(struct plan *p)
{
	if (!p->is_low)
		return;
	p->limit = DISK_BYTES;
	sim_disk_limit(p->sim, p->limit);
	p->world.is_full = p->is_low = false;
	disturb(p, DISTURB_DISK);
}

static void disk_slow(struct plan *p, unsigned ms)
{
	sim_slow_disk(p->sim, (int64_t)ms * SIM_MILLISECOND);
	disturb(p, DISTURB_DISK);
}

static void fault(struct plan *p)
{
	p->result->faults++;
	switch (below(p, 14)) {
	case 0:
		sim_fail_sync(p->sim, below(p, 2) ? "/log/" : NULL);
		disturb(p, DISTURB_DISK);
		break;
	case 1:
		sim_reset_connections(p->sim);
		disturb(p, DISTURB_NETWORK);
		break;
	case 2:
		sim_partition(p->sim, (int64_t)below(p, 3000) * SIM_MILLISECOND);
		disturb(p, DISTURB_NETWORK);
		break;
	case 3:
		disk_low(p);
		break;
	case 4:
		disk_high(p);
		break;
	case 5:
		/* What is pending stays so for long, and all look at it; then it fails. */
		disk_slow(p, 1000);
		if (below(p, 2))
			sim_fail_sync(p->sim, "/log/");
		break;
	case 6:
		/* What `out` has in hand goes on, and the next one must know of it. */
		role_kill(p, "queue");
		break;
	case 7:
		/* In the middle of commits that clients wait for. */
		role_kill(p, "store");
		break;
	default:
		role_kill(p, role_draw(p));
	}
}

/* ---- cuts ---- */

static void disk_check(struct plan *p)
{
	struct sim_disk *disk = sim_disk_copy(p->sim);
	struct fsck k = { .world = &p->world };

	sim_disk_limit(p->sim, DISK_BYTES); /* a rebuild needs room */
	sim_heal_disk(p->sim);
	if (sim_do(p->sim, SIM_SERVER, "fsck", fsck_look_main, &k) != 0)
		world_violation(&p->world, "fsck did not end");
	if (sim_do(p->sim, SIM_SERVER, "disk-check", check_disk_main, &p->world) != 0)
		world_violation(&p->world, "the check of the disk did not end");
	sim_disk_use(p->sim, disk);
	sim_disk_free(disk);
	sim_disk_limit(p->sim, p->limit);
}

static void power_cut(struct plan *p)
{
	sim_power_cut(p->sim);
	disturb(p, DISTURB_CUT);
	p->result->cuts++;
}

/* Something is spoilt on the disk and repaired, and power cuts come between. A server that starts
 * on an unfinished repair makes the index anew now and then, so it must not be all that is left. */
static void repair_cut(struct plan *p, struct fsck *k)
{
	unsigned cuts = below(p, 4);

	for (k->is_done = false; !k->is_done; cuts--) {
		if (cuts)
			sim_stop_at_file(p->sim, NULL, 1 + below(p, 1u << below(p, 10)));
		if (sim_do(p->sim, SIM_SERVER, "fsck", fsck_repair_main, k) == 0)
			break;
		if (!cuts) {
			world_violation(&p->world, "the repair does not end");
			break;
		}
		power_cut(p);
		p->world.counts.repair_cuts++;
		if (!k->needs_index && below(p, 2))
			break;
	}
	sim_stop_at_file(p->sim, NULL, 0);
	p->world.counts.repairs += k->is_done;
}

static void repair(struct plan *p)
{
	struct fsck k = { .world = &p->world, .chance = { chance_next(&p->chance) } };

	sim_disk_limit(p->sim, DISK_BYTES);
	sim_heal_disk(p->sim);
	if (sim_do(p->sim, SIM_SERVER, "spoiler", fsck_spoil_main, &k) == 0 && k.is_done)
		repair_cut(p, &k);
	sim_disk_limit(p->sim, p->limit);
}

static void cut(struct plan *p)
{
	power_cut(p);
	if (below(p, 3) == 0)
		disk_check(p);
	if (below(p, 8) == 0)
		repair(p);
	if (below(p, 2))
		disk_high(p);
	boot(p);
}

/* A place for the next cut: any call that changes a file, or one of those that are few. True: it is
 * one of those by which compaction gives segments back. */
static bool cut_aim(struct plan *p)
{
	static const struct {
		const char *name;
		unsigned most;
	} calls[] = { { "log/header", 4 }, { "log/free-", 4 }, { "log/new", 3 },
		      { "body/", 8 },	   { "index/", 40 },   { ".seg", 40 } };
	unsigned which = below(p, 2 * ARRAY_LEN(calls));

	if (which < ARRAY_LEN(calls))
		sim_stop_at_file(p->sim, calls[which].name, 1 + below(p, calls[which].most));
	else
		sim_stop_at_file(p->sim, NULL, 1 + below(p, 300));
	return which < 2;
}

static void work_until_cut(struct plan *p)
{
	/* From the middle of the start to several seconds of work. */
	unsigned ms = below(p, 4) == 0 ? 1 + below(p, 400) : 400 + below(p, 4000);
	unsigned faults = below(p, 3) == 0 ? 1 + below(p, 2) : 0;
	bool is_compaction = false;

	while (faults--) {
		(void)sim_run(p->sim, (int64_t)below(p, ms) * SIM_MILLISECOND, NULL, NULL);
		fault(p);
	}
	if (below(p, 6) == 0)
		disk_slow(p, ms);
	if (below(p, 2))
		is_compaction = cut_aim(p);
	if (sim_run(p->sim, (int64_t)ms * SIM_MILLISECOND, NULL, NULL) == SIM_AT_FILE)
		p->world.counts.compact_cuts += is_compaction;
	sim_stop_at_file(p->sim, NULL, 0);
	cut(p);
}

/* ---- the end ---- */

enum { ALL_ACCOUNTS = (1 << WORLD_ACCOUNTS) - 1 };

static bool is_settled(void *arg)
{
	struct plan *p = arg;

	return p->world.queue_is_empty && p->world.audited == ALL_ACCOUNTS;
}

/* Everybody is kind until nothing is under way. */
static bool settle(struct plan *p)
{
	struct world *w = &p->world;

	disk_high(p);
	w->is_kind = true;
	/* Twice: what was under way at the first look is seen by the second. */
	for (unsigned i = 0; i < 2; i++) {
		w->queue_is_empty = false;
		w->audited = 0;
		if (sim_run(p->sim, (int64_t)SETTLE_SECONDS * SIM_SECOND, is_settled, p) !=
		    SIM_STOPPED) {
			world_violation(w, "it does not settle: queue empty %d, accounts %x",
					w->queue_is_empty, w->audited);
			return false;
		}
	}
	return true;
}

static void finish(struct plan *p)
{
	if (!settle(p))
		return;
	world_check_end(&p->world);
	if (!sim_stop(p->sim))
		world_violation(&p->world, "the server does not stop");
	else
		disk_check(p);
}

/* ---- leaks ---- */

struct usages {
	char names[USAGE_MAX][48];
	struct sim_usage u[USAGE_MAX];
	size_t n;
};

static void usages_take(struct plan *p, struct usages *x)
{
	x->n = sim_usage(p->sim, x->u, USAGE_MAX);
	for (size_t i = 0; i < x->n; i++) {
		snprintf(x->names[i], sizeof(x->names[i]), "%s", x->u[i].name);
		sim_trace(p->sim, "%s: %zu files, %zu other descriptors, %zu bytes", x->names[i],
			  x->u[i].files, x->u[i].descriptors, x->u[i].bytes);
	}
}

static const struct sim_usage *usage_of(const struct usages *x, int process)
{
	for (size_t i = 0; i < x->n; i++)
		if (x->u[i].process == process)
			return &x->u[i];
	return NULL;
}

/* More in each burst than in the one before: that is no cache that filled. */
static bool has_grown(const size_t *held, size_t by)
{
	for (unsigned i = 1; i < BURSTS_COMPARED; i++)
		if (held[i] <= held[i - 1] + by)
			return false;
	return true;
}

static void leaks_check(struct plan *p, const struct usages *x)
{
	const struct usages *last = &x[BURSTS_COMPARED - 1];

	for (size_t i = 0; i < last->n; i++) {
		const struct sim_usage *now = &last->u[i], *u;
		size_t descriptors[BURSTS_COMPARED], bytes[BURSTS_COMPARED];
		unsigned n = 0;

		for (; n < BURSTS_COMPARED && (u = usage_of(&x[n], now->process)); n++) {
			descriptors[n] = u->descriptors;
			bytes[n] = u->bytes;
		}
		if (now->where != SIM_SERVER || n < BURSTS_COMPARED)
			continue;
		if (has_grown(descriptors, 0))
			world_violation(&p->world, "%s leaks descriptors: %zu after %zu",
					last->names[i], now->descriptors, descriptors[0]);
		if (now->files > FILES_MAX)
			world_violation(&p->world, "%s keeps %zu files open", last->names[i],
					now->files);
		if (has_grown(bytes, GROWTH_BYTES))
			world_violation(&p->world, "%s leaks memory: %zu after %zu bytes",
					last->names[i], now->bytes, bytes[0]);
	}
}

static void bursts(struct plan *p)
{
	struct usages *x = calloc(BURSTS, sizeof(*x));

	for (unsigned i = 0; i < BURSTS; i++) {
		p->world.is_kind = false;
		(void)sim_run(p->sim, (int64_t)BURST_SECONDS * SIM_SECOND, NULL, NULL);
		if (!x || !settle(p)) {
			free(x);
			return;
		}
		/* Idle connections go by themselves. */
		(void)sim_run(p->sim, (int64_t)SILENCE_SECONDS * SIM_SECOND, NULL, NULL);
		usages_take(p, &x[i]);
	}
	leaks_check(p, &x[BURSTS - BURSTS_COMPARED]);
	free(x);
}

static void run(struct plan *p)
{
	boot(p);
	clients_start(p);
	if (p->options->has_bursts) {
		bursts(p);
	} else {
		for (unsigned i = 0; i < p->options->cuts && !p->world.violations; i++)
			work_until_cut(p);
	}
	if (!p->world.violations)
		finish(p);
}

void plan_run(const struct plan_options *o, struct plan_result *out)
{
	struct plan *all = calloc(1, sizeof(*all));
	const char *addresses[WORLD_ACCOUNTS + 1] = { NULL };
	const char *aliases[2 * WORLD_TEAM + 3] = { NULL };
	struct sim_options so = { .seed = o->seed,
				  .trace = o->trace,
				  .mutant = o->mutant,
				  .accounts = addresses,
				  .password = password,
				  .aliases = aliases,
				  .conf = "delay_warning_time = 0\nminimal_backoff_time = 1s\n"
					  "maximal_backoff_time = 4s\nlog_level = info\n",
				  .disk_bytes = DISK_BYTES };

	*out = (struct plan_result){ .seed = o->seed };
	if (!all)
		panic("sim: no memory");
	*all = (struct plan){
		.options = o, .result = out, .chance = { ~o->seed }, .limit = DISK_BYTES
	};
	world_start(all);
	for (unsigned i = 0; i < WORLD_ACCOUNTS; i++)
		addresses[i] = all->world.accounts[i].address;
	for (unsigned i = 0; i <= WORLD_TEAM; i++) {
		aliases[2 * i] = WORLD_ALIAS;
		aliases[2 * i + 1] = i < WORLD_TEAM ? addresses[i] : WORLD_LIST;
	}
	if (sim_new(&so, &all->sim))
		panic("sim: no memory");
	run(all);
	out->kills = all->world.kills;
	out->violations = all->world.violations;
	memcpy(out->first_violation, all->world.first_violation, sizeof(out->first_violation));
	out->counts = all->world.counts;
	out->simulated_ns = sim_now(all->sim);
	out->sim = sim_counts(all->sim);
	out->hash = sim_trace_hash(all->sim);
	sim_free(all->sim);
	free(all);
}
