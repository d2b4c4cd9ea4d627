/* The simulator: two machines, their processes, the network between them and the server's disk, in
 * one real process, from one seed.
 *
 * A simulated process is a coroutine with a descriptor table and a heap of its own. It runs the
 * same code as the real one, over the simulator's implementation of base/os.h, and is interrupted
 * where it waits and at calls that change files. Who runs next, how long the network takes, where
 * it cuts bytes, and what a power cut leaves on the disk, is drawn from the seed: the same seed and
 * the same binary give the same run. Nothing here may depend on real time or on addresses.
 *
 * The server's machine (SIM_SERVER) has the disk and runs Posthorn; clients and the remote host
 * live on the other (SIM_OUTSIDE), which never loses power and has no files.
 *
 *	sim_new(&options, &s);
 *	sim_boot(s);                                    // supervisor and roles
 *	sim_spawn(s, SIM_OUTSIDE, "client-1", client_main, &client);
 *	sim_run(s, 3 * SIM_SECOND, NULL, NULL);         // or until a stop condition holds
 *	sim_power_cut(s);                               // the server's processes are gone
 *	sim_boot(s);                                    // on what the disk kept
 *
 * The driver (whoever calls sim_run) is no simulated process: it must not call base/os.h. What has
 * to look at the server's files does so in a process of its own: sim_do.
 */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include "base/addr.h"
#include "base/buf.h"

struct sim;

enum { SIM_MICROSECOND = 1000, SIM_MILLISECOND = 1000 * 1000, SIM_SECOND = 1000 * 1000 * 1000 };

enum sim_machine { SIM_SERVER, SIM_OUTSIDE };

/* Where things are. The remote host listens (os_listen) on SIM_REMOTE_IP, port 25, from a process
 * of its own; clients connect to SIM_SERVER_IP. Names: the stand-in for the resolver answers MX of
 * every domain that ends in "remote.example" with mx.remote.example, whose address is
 * SIM_REMOTE_IP; nothing else exists. */
#define SIM_SERVER_IP "192.0.2.1"
#define SIM_REMOTE_IP "192.0.2.10"
#define SIM_DATA_DIR  "/data"
#define SIM_STORE_DIR "/data/store"
#define SIM_CONFIG    "/posthorn.conf"
enum { SIM_PORT_SMTP = 25, SIM_PORT_LMTP = 24, SIM_PORT_SUBMISSION = 587, SIM_PORT_IMAP = 143 };

struct sim_options {
	uint64_t seed;
	bool trace;	    /* a readable line per event, on standard output */
	const char *mutant; /* the name of one that is on (base/mutant.h), or NULL */
	/* Addresses, NULL-ended, all with this password, made at the first boot. */
	const char *const *accounts;
	const char *password;
	const char *const *aliases; /* pairs of address and target, NULL-ended; or NULL */
	const char *conf;	    /* more lines for posthorn.conf, or NULL */
	uint64_t disk_bytes;	    /* size of the disk; 0: 1 GB */
	/* Chances in 1000, where 0 stands for the default; SIM_NEVER for none. */
	unsigned interrupt;   /* that a call which changes files lets others run first (300) */
	unsigned network_cut; /* that bytes sent are cut into parts that arrive apart (100) */
	unsigned short_write; /* that the network takes only a part of what is sent (30) */
};
enum { SIM_NEVER = 0xffff };

MUST_USE enum err sim_new(const struct sim_options *o, struct sim **out);
void sim_free(struct sim *s);

/* ---- processes ---- */

/* A process on that machine; main's result is its exit status. `name` is copied. Outside processes
 * survive power cuts; when they end, everything they had is gone. The number of the process. */
int sim_spawn(struct sim *s, enum sim_machine where, const char *name, int (*main)(void *arg),
	      void *arg);
bool sim_is_alive(const struct sim *s, int process);
/* Runs everything until this function, in a process of its own on that machine, has ended; its
 * result, or -1 when it did not end in an hour of simulated time or was killed. */
int sim_do(struct sim *s, enum sim_machine where, const char *name, int (*main)(void *arg),
	   void *arg);

/* Starts the server. The first time, the disk is empty: configuration and accounts are made, and
 * synced. Returns at once; sim_is_ready tells when all roles work. */
void sim_boot(struct sim *s);
bool sim_is_ready(const struct sim *s);
bool sim_is_up(const struct sim *s); /* its supervisor lives */
/* Asks the server to stop and runs until it has; false: it did not within a minute. */
bool sim_stop(struct sim *s);
/* kill -9 of one role's process ("store", "session"; index among those that live). A copy of the
 * zygote is named "session+". False: there is none. */
bool sim_kill(struct sim *s, const char *role, unsigned index);

/* ---- running ---- */

enum sim_why {
	SIM_TIME,    /* the time is over */
	SIM_STOPPED, /* stop() said so */
	SIM_AT_FILE, /* the file operation of sim_stop_at_file was reached, and not yet done */
	SIM_IDLE,    /* nobody will ever do anything again */
};
/* For so many nanoseconds of simulated time, or until stop(arg), which is asked after every step,
 * is true. */
enum sim_why sim_run(struct sim *s, int64_t nanoseconds, bool (*stop)(void *arg), void *arg);
/* The next sim_run ends before the nth call from now that changes files on the server; 0: never. A
 * power cut there falls between two calls of one process. `name`: a part of the path that is meant,
 * NULL: any. */
void sim_stop_at_file(struct sim *s, const char *name, uint64_t n);
uint64_t sim_file_operations(const struct sim *s); /* counted since sim_new */

/* ---- faults ---- */

/* The server's machine loses power now: its processes are gone, its connections are reset after a
 * while (what had been sent may still arrive), and of what was not synced the disk keeps an
 * arbitrary subset. */
void sim_power_cut(struct sim *s);
/* The next fdatasync or fsync of a file fails, and what it should have written is gone although
 * reads still see it; later ones say ERR_OK. `name`: a part of the path that is meant, NULL: any.
 */
void sim_fail_sync(struct sim *s, const char *name);
/* Syncs take up to half a second for so long. */
void sim_slow_disk(struct sim *s, int64_t nanoseconds);
/* No sync fails or is slow any more. */
void sim_heal_disk(struct sim *s);
/* The size of the disk, in bytes, from now on. ERR_FULL when it is full. */
void sim_disk_limit(struct sim *s, uint64_t bytes);
uint64_t sim_disk_used(const struct sim *s);
/* All connections between the machines are reset. */
void sim_reset_connections(struct sim *s);
/* Nothing gets through for so long; what was sent arrives afterwards. */
void sim_partition(struct sim *s, int64_t nanoseconds);

/* The whole durable disk, to be looked at with sim_do and put back: only while the server is down.
 */
struct sim_disk;
struct sim_disk *sim_disk_copy(struct sim *s);
void sim_disk_use(struct sim *s, const struct sim_disk *d);
void sim_disk_free(struct sim_disk *d);

/* ---- what happens ---- */

int64_t sim_now(const struct sim *s); /* simulated nanoseconds since sim_new */
/* Below n, from the seed; in driver and processes alike. */
uint64_t sim_random(struct sim *s, uint64_t n);
bool sim_chance(struct sim *s, unsigned in_1000);
/* A line of the trace. It counts for the hash, seen or not. */
void sim_trace(struct sim *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Of all that happened so far: equal for two runs of one seed. */
uint64_t sim_trace_hash(const struct sim *s);

/* What a living process holds. */
struct sim_usage {
	const char *name; /* until the next sim_run */
	int process;
	enum sim_machine where;
	size_t bytes, blocks;
	size_t files, descriptors; /* open files of the disk; all other descriptors */
};
/* All living processes, in order of their numbers; how many there are, of which `max` are told. */
size_t sim_usage(const struct sim *s, struct sim_usage *out, size_t max);

struct sim_counts {
	uint64_t steps, boots, power_cuts, kills, connections, syncs, file_operations;
	uint64_t dirty_blocks, kept_blocks, torn_blocks; /* what the power cuts found and left */
	uint64_t names_lost;				 /* directory entries */
};
struct sim_counts sim_counts(const struct sim *s);

#endif
