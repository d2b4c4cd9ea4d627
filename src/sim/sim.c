/* The simulator's life: what the driver asks for. */
#include "sim/sim_priv.h"

#include "auth/directory.h"
#include "conf/conf.h"
#include "roles/supervisor.h"
#include "text/charset.h"

#include <sqlite3.h>
#include <stdio.h>

enum {
	DISK_BYTES = 1024 * 1024 * 1024,
	INTERRUPT = 300,
	NETWORK_CUT = 100,
	SHORT_WRITE = 30,
	DO_SECONDS = 3600,
	STOP_SECONDS = 60,
};

static unsigned chance_or(unsigned asked, unsigned standard)
{
	return asked == SIM_NEVER ? 0 : asked ? asked : standard;
}

enum err sim_new(const struct sim_options *o, struct sim **out)
{
	struct sim *s = sim_alloc(sizeof(*s));
	struct sim_random seeds = { .state = o->seed };
	enum err err;

	if (sim_here)
		panic("there is one simulator at a time");
	/* Its mutexes would belong to the real process. */
	if (sqlite3_config(SQLITE_CONFIG_SINGLETHREAD) != SQLITE_OK ||
	    sqlite3_initialize() != SQLITE_OK)
		panic("SQLite does not begin");
	/* The modules that convert charsets stay loaded; each boot would load them again. */
	s->charsets = charset_preload();
	s->options = *o;
	s->options.interrupt = chance_or(o->interrupt, INTERRUPT);
	s->options.network_cut = chance_or(o->network_cut, NETWORK_CUT);
	s->options.short_write = chance_or(o->short_write, SHORT_WRITE);
	s->random.state = sim_random_next(&seeds);
	s->scheduling.state = sim_random_next(&seeds);
	s->entropy.state = sim_random_next(&seeds);
	s->network.state = sim_random_next(&seeds);
	s->processes_end = &s->processes;
	s->next_number = 100;
	if ((err = sim_fs_new(o->disk_bytes ? o->disk_bytes : DISK_BYTES, sim_random_next(&seeds),
			      &s->fs))) {
		sim_release(s);
		return err;
	}
	sim_here = s;
	*out = s;
	return ERR_OK;
}

void sim_free(struct sim *s)
{
	if (!s)
		return;
	s->is_power_lost = true;
	processes_kill(s, SIM_SERVER);
	processes_kill(s, SIM_OUTSIDE);
	object_drop(s->ready);
	while (s->events_n)
		object_drop(s->events[--s->events_n].object);
	charset_preload_free(s->charsets);
	sim_fs_free(s->fs);
	while (s->free_stacks_n)
		sim_pages_free(s->free_stacks[--s->free_stacks_n], SIM_STACK);
	sim_release(s->events);
	sim_release(s);
	sim_here = NULL;
	sqlite3_shutdown();
}

/* ---- processes ---- */

int sim_spawn(struct sim *s, enum sim_machine where, const char *name, int (*main)(void *arg),
	      void *arg)
{
	return process_new(s, where, name, 0, main, arg)->number;
}

bool sim_is_alive(const struct sim *s, int process)
{
	const struct sim_process *p = process_find(s, process);

	return p && p->state != PROCESS_ENDED;
}

struct errand {
	struct sim *sim;
	int (*main)(void *arg);
	void *arg;
	int process, result;
};

static int errand_main(void *arg)
{
	struct errand *e = arg;
	int result = e->main(e->arg);

	e->result = result;
	return result;
}

static bool errand_is_done(void *arg)
{
	const struct errand *e = arg;

	return !sim_is_alive(e->sim, e->process);
}

int sim_do(struct sim *s, enum sim_machine where, const char *name, int (*main)(void *arg),
	   void *arg)
{
	struct errand e = { .sim = s, .main = main, .arg = arg, .result = -1 };
	struct sim_process *p;

	e.process = sim_spawn(s, where, name, errand_main, &e);
	sim_run(s, (int64_t)DO_SECONDS * SIM_SECOND, errand_is_done, &e);
	if ((p = process_find(s, e.process)))
		process_kill(p, -1);
	return e.result;
}

/* ---- the server ---- */

static const char server_conf[] = "myhostname = mail.example.test\n"
				  "myorigin = example.test\n"
				  "data_dir = " SIM_DATA_DIR "\n"
				  "listen = smtp " SIM_SERVER_IP ":25\n"
				  "listen = lmtp " SIM_SERVER_IP ":24\n"
				  "listen = submission " SIM_SERVER_IP ":587\n"
				  "listen = imap " SIM_SERVER_IP ":143\n"
				  "disable_plaintext_auth = no\n"
				  "front_processes = 1\n"
				  "filter_processes = 1\n"
				  "out_processes = 1\n"
				  "lookup_processes = 1\n";

static enum err conf_write(const struct sim_options *o)
{
	int fd;
	enum err err = os_open(-1, SIM_CONFIG, OS_WRITE | OS_CREATE | OS_TRUNCATE, &fd);

	if (err)
		return err;
	err = os_write_all(fd, str_from_c(server_conf));
	if (!err && o->conf)
		err = os_write_all(fd, str_from_c(o->conf));
	os_close(fd);
	return err;
}

static enum err account_add(struct directory *d, const struct sim_options *o, str address)
{
	char stored[PASSWORD_STORED_MAX];
	struct password_record record = { .hash = STR_EMPTY };
	uint64_t id;
	enum err err = directory_domain_add(d, str_from(address, str_rfind_char(address, '@') + 1));

	/* No hash: what a login costs is not what is looked for here. */
	snprintf(stored, sizeof(stored), "{PLAIN}%s", o->password);
	record.hash = str_from_c(stored);
	if (err && err != ERR_EXISTS)
		return err;
	return directory_account_add(d, address, &record, 0, os_wall_us() / 1000000, &id);
}

static enum err directory_make(const struct sim_options *o)
{
	struct directory_options options = { .create = true };
	char why[DIRECTORY_WHY_SIZE] = "";
	struct directory *d;
	enum err err = os_mkdir(-1, SIM_DATA_DIR, 0711);

	if (!err)
		err = os_mkdir(-1, SIM_DATA_DIR "/directory", 0700);
	os_random(options.secret, sizeof(options.secret));
	if (!err)
		err = directory_open(SIM_DATA_DIR "/directory/directory.db", &options, &d, why);
	if (err) {
		sim_trace(sim_here, "the directory: %s", why);
		return err;
	}
	for (size_t i = 0; o->accounts && o->accounts[i] && !err; i++)
		err = account_add(d, o, str_from_c(o->accounts[i]));
	for (size_t i = 0; o->aliases && o->aliases[i] && !err; i += 2)
		err = directory_alias_add(d, str_from_c(o->aliases[i]),
					  str_from_c(o->aliases[i + 1]));
	directory_close(d);
	return err;
}

static int prepare_main(void *arg)
{
	const struct sim *s = arg;
	enum err err = conf_write(&s->options);

	if (!err)
		err = directory_make(&s->options);
	return err;
}

enum { READY_FD = 3 };

static int server_main(void *arg UNUSED)
{
	struct supervisor_options o = { .config_path = S(SIM_CONFIG), .ready_fd = READY_FD };
	struct arena *a = arena_new(CONF_ARENA_SIZE);
	struct buf problems;
	enum err err = a ? conf_read_file(o.config_path, a, &o.config_text) : ERR_NO_MEMORY;

	buf_init(&problems, CONF_PROBLEMS_MAX);
	if (!err)
		err = conf_parse(o.config_text, o.config_path, a, &problems, &o.conf);
	if (!err)
		err = conf_check(o.conf, &problems);
	if (err)
		panic("the simulator's configuration: %s %.*s", err_name(err),
		      STR_ARGS(buf_str(&problems)));
	return supervisor_main(&o);
}

void sim_boot(struct sim *s)
{
	struct sim_process *p;
	struct sim_object *ends[2];
	int fd;

	if (!s->is_prepared) {
		int failed = sim_do(s, SIM_SERVER, "prepare", prepare_main, s);

		if (failed)
			panic("the first boot: %s", err_name((enum err)failed));
		sim_fs_sync_all(s->fs);
		s->is_prepared = true;
	}
	s->counts.boots++;
	sim_trace(s, "---- boot");
	p = process_new(s, SIM_SERVER, "supervisor", 0, server_main, s);
	s->supervisor = p->number;
	if (net_pair(s, SIM_STREAM, SIM_SERVER, ends) || process_fd(p, ends[1], READY_FD, &fd))
		panic("the server cannot be told from");
	object_drop(ends[1]);
	object_drop(s->ready);
	s->ready = ends[0];
}

bool sim_is_ready(const struct sim *s)
{
	return s->ready && s->ready->socket.queued > 0;
}

bool sim_is_up(const struct sim *s)
{
	return s->supervisor && sim_is_alive(s, s->supervisor);
}

static bool is_down(void *arg)
{
	return !sim_is_up(arg);
}

bool sim_stop(struct sim *s)
{
	struct sim_process *p = process_find(s, s->supervisor);

	if (p)
		process_signal(p, OS_SIG_TERM);
	sim_run(s, (int64_t)STOP_SECONDS * SIM_SECOND, is_down, s);
	return !sim_is_up(s);
}

bool sim_kill(struct sim *s, const char *role, unsigned index)
{
	for (struct sim_process *p = s->processes; p; p = p->next)
		if (p->where == SIM_SERVER && p->state != PROCESS_ENDED &&
		    strcmp(p->name, role) == 0 && index-- == 0) {
			s->counts.kills++;
			sim_trace(s, "---- kill -9 of %s", role);
			process_kill(p, 256 + 9);
			return true;
		}
	return false;
}

/* ---- faults ---- */

void sim_power_cut(struct sim *s)
{
	s->counts.power_cuts++;
	sim_trace(s, "---- power cut");
	s->is_power_lost = true;
	processes_kill(s, SIM_SERVER);
	net_forget_server(s);
	object_drop(s->ready);
	s->ready = NULL;
	s->is_power_lost = s->is_at_file = false;
	s->stop_at_file = 0;
	s->supervisor = 0;
	sim_fs_cut(s->fs);
}

void sim_fail_sync(struct sim *s, const char *name)
{
	s->fails_sync = true;
	snprintf(s->fail_name, sizeof(s->fail_name), "%s", name ? name : "");
}

void sim_disk_limit(struct sim *s, uint64_t bytes)
{
	sim_trace(s, "---- the disk has %llu bytes, %llu are used", (unsigned long long)bytes,
		  (unsigned long long)sim_fs_used(s->fs));
	sim_fs_limit(s->fs, bytes);
}

uint64_t sim_disk_used(const struct sim *s)
{
	return sim_fs_used(s->fs);
}

void sim_reset_connections(struct sim *s)
{
	sim_trace(s, "---- all connections are reset");
	net_reset_all(s);
}

void sim_slow_disk(struct sim *s, int64_t nanoseconds)
{
	sim_trace(s, "---- syncs are slow for %lld ms", (long long)(nanoseconds / SIM_MILLISECOND));
	s->slow_until = s->now + nanoseconds;
}

void sim_heal_disk(struct sim *s)
{
	s->fails_sync = false;
	s->slow_until = s->now;
}

void sim_partition(struct sim *s, int64_t nanoseconds)
{
	sim_trace(s, "---- no network for %lld ms", (long long)(nanoseconds / SIM_MILLISECOND));
	s->partition_until = s->now + nanoseconds;
}

void sim_stop_at_file(struct sim *s, const char *name, uint64_t n)
{
	s->stop_at_file = n;
	snprintf(s->stop_name, sizeof(s->stop_name), "%s", name ? name : "");
}

uint64_t sim_file_operations(const struct sim *s)
{
	return s->counts.file_operations;
}

struct sim_disk {
	struct sim_fs *fs;
};

struct sim_disk *sim_disk_copy(struct sim *s)
{
	struct sim_disk *d = sim_alloc(sizeof(*d));

	d->fs = sim_fs_copy(s->fs);
	return d;
}

void sim_disk_use(struct sim *s, const struct sim_disk *d)
{
	sim_fs_restore(s->fs, d->fs);
}

void sim_disk_free(struct sim_disk *d)
{
	if (d)
		sim_fs_free(d->fs);
	sim_release(d);
}

/* ---- what happens ---- */

int64_t sim_now(const struct sim *s)
{
	return s->now;
}

uint64_t sim_random(struct sim *s, uint64_t n)
{
	return sim_random_below(&s->random, n);
}

bool sim_chance(struct sim *s, unsigned in_1000)
{
	return sim_random_chance(&s->random, in_1000);
}

static bool is_disk_file(const struct sim_object *o)
{
	struct sim_inode_facts f;

	if (o->kind != SIM_FILE)
		return false;
	f = sim_inode_facts(o->file.inode);
	return !f.is_directory && !f.is_anonymous;
}

size_t sim_usage(const struct sim *s, struct sim_usage *out, size_t max)
{
	size_t n = 0;

	for (const struct sim_process *p = s->processes; p; p = p->next) {
		if (p->state == PROCESS_ENDED)
			continue;
		if (n < max) {
			out[n] = (struct sim_usage){ .name = p->name,
						     .process = p->number,
						     .where = p->where,
						     .bytes = sim_heap_bytes(p->heap),
						     .blocks = sim_heap_blocks(p->heap) };
			for (int fd = 0; fd < p->fds_end; fd++)
				if (p->fds[fd] && is_disk_file(p->fds[fd]))
					out[n].files++;
				else
					out[n].descriptors += p->fds[fd] != NULL;
		}
		n++;
	}
	return n;
}

struct sim_counts sim_counts(const struct sim *s)
{
	struct sim_fs_counts fs = sim_fs_counts(s->fs);
	struct sim_counts c = s->counts;

	c.dirty_blocks = fs.dirty_blocks;
	c.kept_blocks = fs.kept_blocks;
	c.torn_blocks = fs.torn_blocks;
	c.names_lost = fs.names_lost;
	return c;
}
