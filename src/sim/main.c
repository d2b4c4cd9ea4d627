/* posthorn-sim: runs seeds, each in a process of its own, and says what broke.
 *
 *	posthorn-sim [--seed N] [--cuts N] [--seconds N] [--jobs N]    seeds from N on, in TAP
 *	posthorn-sim --seed N --trace                                  one seed, readable
 *	posthorn-sim --mutants [NAME] [--trials N]                     seeds until each is caught
 *
 * A run is a real process, so that one that crashes or hangs is a failure of its seed and of no
 * other. This file is outside of the simulation: it uses the real clock and real processes. */
#include "sim/plan.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	JOBS_MAX = 16,
	CUTS_PER_SEED = 25,
	SEED_SECONDS = 300, /* real ones; a run that takes longer hangs */
	TRIALS = 5,	    /* of each mutant */
	TRIAL_SEEDS = 20,   /* a mutant that survives so many is not caught */
	HUNT_SEEDS = TRIALS * TRIAL_SEEDS,
	OUTPUT_KEPT = 4096,
};

struct mutant {
	const char *name, *text;
};

static const struct mutant mutants[] = {
#define MUTANT_ROW(name, text) { #name, text },
#include "sim/mutants.def"
#undef MUTANT_ROW
	{ NULL, NULL },
};

struct arguments {
	uint64_t seed, cuts;
	unsigned seconds, jobs, trials;
	bool trace, mutants, has_seed;
	const char *mutant;
};

/* A seed under way. */
struct job {
	pid_t pid; /* 0: none */
	int pipe, output;
	uint64_t seed;
	size_t got;
	struct plan_result result;
	char kept[OUTPUT_KEPT]; /* the last that it said on standard error */
	size_t kept_n;
};

struct totals {
	uint64_t seeds, failed, cuts;
	int64_t simulated_ns;
	struct world_counts counts;
	struct sim_counts sim;
	unsigned kills, faults;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void child(const struct plan_options *o, int out)
{
	struct plan_result result;
	const char *p = (const char *)&result;

	alarm(o->trace ? 0 : SEED_SECONDS);
	plan_run(o, &result);
	fflush(stdout);
	for (size_t done = 0; done < sizeof(result);) {
		ssize_t n = write(out, p + done, sizeof(result) - done);

		if (n <= 0)
			_exit(1);
		done += (size_t)n;
	}
	_exit(0);
}

static void job_start(struct job *j, const struct plan_options *o)
{
	int result[2], output[2];

	fflush(stdout);
	if (pipe(result) || pipe(output) || (j->pid = fork()) < 0) {
		perror("posthorn-sim");
		exit(2);
	}
	if (j->pid == 0) {
		close(result[0]);
		close(output[0]);
		if (!o->trace)
			dup2(output[1], 2);
		child(o, result[1]);
	}
	close(result[1]);
	close(output[1]);
	j->pipe = result[0];
	j->output = output[0];
	j->seed = o->seed;
	j->got = j->kept_n = 0;
}

/* The end of what it says: an assertion, a sanitizer's report. */
static void output_take(struct job *j)
{
	char piece[1024];
	ssize_t n = read(j->output, piece, sizeof(piece));

	if (n <= 0) {
		close(j->output);
		j->output = -1;
		return;
	}
	/* The first report is the one that matters; the rest follows from it. */
	n = (ssize_t)(j->kept_n + (size_t)n > OUTPUT_KEPT ? OUTPUT_KEPT - j->kept_n : (size_t)n);
	memcpy(j->kept + j->kept_n, piece, (size_t)n);
	j->kept_n += (size_t)n;
}

static void result_take(struct job *j)
{
	char *p = (char *)&j->result;
	ssize_t n = read(j->pipe, p + j->got, sizeof(j->result) - j->got);

	if (n > 0)
		j->got += (size_t)n;
	if (n <= 0 || j->got == sizeof(j->result)) {
		close(j->pipe);
		j->pipe = -1;
	}
}

/* Waits until one of the jobs has ended, and returns it. */
static struct job *job_wait(struct job *jobs, unsigned n)
{
	for (;;) {
		struct pollfd fds[2 * JOBS_MAX];

		for (unsigned i = 0; i < n; i++) {
			struct job *j = &jobs[i];

			if (j->pid && j->pipe < 0 && j->output < 0)
				return j;
			fds[2 * i] = (struct pollfd){ j->pid ? j->pipe : -1, POLLIN, 0 };
			fds[2 * i + 1] = (struct pollfd){ j->pid ? j->output : -1, POLLIN, 0 };
		}
		if (poll(fds, 2 * n, -1) < 0)
			continue;
		for (unsigned i = 0; i < n; i++) {
			if (fds[2 * i].revents)
				result_take(&jobs[i]);
			if (fds[2 * i + 1].revents)
				output_take(&jobs[i]);
		}
	}
}

/* True when it ran to its end; otherwise its violation says how it ended. */
static bool job_end(struct job *j)
{
	int status = 0;

	while (waitpid(j->pid, &status, 0) < 0)
		;
	j->pid = 0;
	if (j->got == sizeof(j->result) && status == 0)
		return true;
	memset(&j->result, 0, sizeof(j->result));
	j->result.seed = j->seed;
	j->result.violations = 1;
	snprintf(j->result.first_violation, sizeof(j->result.first_violation),
		 WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? "it hangs"
								    : "it crashed (status %d)",
		 status);
	return false;
}

static void add(uint64_t *to, const uint64_t *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] += from[i];
}

static void total(struct totals *t, const struct plan_result *r)
{
	t->seeds++;
	t->failed += r->violations > 0;
	t->cuts += r->cuts;
	t->kills += r->kills;
	t->faults += r->faults;
	t->simulated_ns += r->simulated_ns;
	/* Structs of uint64_t alone. */
	add((uint64_t *)(void *)&t->counts, (const uint64_t *)(const void *)&r->counts,
	    sizeof(t->counts) / sizeof(uint64_t));
	add((uint64_t *)(void *)&t->sim, (const uint64_t *)(const void *)&r->sim,
	    sizeof(t->sim) / sizeof(uint64_t));
}

static void failure_print(const struct arguments *a, const struct job *j, bool crashed)
{
	printf("# seed %llu: %s\n#   replay: posthorn-sim --seed %llu --cuts %llu --trace%s%s\n",
	       (unsigned long long)j->seed, j->result.first_violation, (unsigned long long)j->seed,
	       (unsigned long long)CUTS_PER_SEED, a->mutant ? " --mutants " : "",
	       a->mutant ? a->mutant : "");
	for (size_t i = 0, begin = 0; crashed && i < j->kept_n; i++)
		if (j->kept[i] == '\n') {
			printf("#   %.*s\n", (int)(i - begin), j->kept + begin);
			begin = i + 1;
		}
}

#define N(x) (unsigned long long)(x)

static void totals_print(const struct totals *t, int64_t ms)
{
	const struct world_counts *c = &t->counts;
	const struct sim_counts *s = &t->sim;

	printf("# %llu seeds, %llu power cuts, %u kills, %u other faults in %lld s (%llu s "
	       "simulated)\n",
	       N(t->seeds), N(t->cuts), t->kills, t->faults, (long long)(ms / 1000),
	       N(t->simulated_ns / 1000000000));
	printf("# %llu operations: %llu deliveries, %llu relayed, %llu notices, %llu logins, %llu "
	       "APPEND, "
	       "%llu STORE, %llu COPY, %llu MOVE, %llu EXPUNGE, %llu mailboxes, %llu FETCH, %llu "
	       "commands\n",
	       N(c->operations), N(c->deliveries), N(c->relayed), N(c->notices), N(c->logins),
	       N(c->appends), N(c->flags), N(c->copies), N(c->moves), N(c->expunges),
	       N(c->mailboxes), N(c->fetches), N(c->commands));
	printf("# checked: %llu accounts looked through, %llu messages byte for byte, %llu disks\n",
	       N(c->audits), N(c->rows), N(c->offline));
	printf("# windows: %llu sent again and both kept (RFC 1047), %llu relayed twice, %llu done "
	       "although a role died and the answer was 4yz; %llu commands without an answer, %llu "
	       "of "
	       "them done\n",
	       N(c->resent), N(c->relayed_twice), N(c->deferred_yet), N(c->unknown),
	       N(c->unknown_done));
	printf("# notices of success: %llu, %llu of aliases, %llu not written (window 3); %llu "
	       "recipients deleted\n",
	       N(c->told), N(c->expanded), N(c->untold), N(c->deleted));
	printf("# %llu power cuts where compaction gives segments back; %llu repairs, with %llu "
	       "cuts "
	       "in them; %llu records of the queue compared\n",
	       N(c->compact_cuts), N(c->repairs), N(c->repair_cuts), N(c->queued));
	printf("# disk: %llu syncs; at the cuts %llu unsynced blocks, %llu kept, %llu torn, %llu "
	       "names lost\n",
	       N(s->syncs), N(s->dirty_blocks), N(s->kept_blocks), N(s->torn_blocks),
	       N(s->names_lost));
}

/* Some seeds look for leaks instead. */
static bool has_bursts(uint64_t seed)
{
	return seed % 16 == 0;
}

/* Seeds, until there were enough cuts or the time is over. */
static struct totals seeds_run(const struct arguments *a)
{
	struct job *jobs = calloc(JOBS_MAX, sizeof(*jobs));
	struct totals t = { .seeds = 0 };
	uint64_t seed = a->seed, planned = 0;
	int64_t end = a->seconds ? now_ms() + (int64_t)a->seconds * 1000 : INT64_MAX;
	unsigned running = 0;

	for (;;) {
		for (unsigned i = 0; i < a->jobs; i++) {
			struct plan_options o = { .seed = seed,
						  .cuts = CUTS_PER_SEED,
						  .has_bursts = has_bursts(seed),
						  .mutant = a->mutant };

			if (jobs[i].pid || (planned >= a->cuts && t.cuts >= a->cuts) ||
			    now_ms() >= end)
				continue;
			job_start(&jobs[i], &o);
			planned += o.cuts;
			seed++;
			running++;
		}
		if (!running) {
			free(jobs);
			return t;
		}
		struct job *j = job_wait(jobs, a->jobs);
		bool whole = job_end(j);

		running--;
		total(&t, &j->result);
		if (j->result.violations)
			failure_print(a, j, !whole);
		fflush(stdout);
	}
}

static int check_run(const struct arguments *a)
{
	int64_t began = now_ms();
	struct totals t = seeds_run(a);

	totals_print(&t, now_ms() - began);
	printf("%sok 1 - nothing acknowledged is lost, nothing appears that a cut took back (seeds "
	       "%llu "
	       "to %llu)\n",
	       t.failed ? "not " : "", N(a->seed), N(a->seed + t.seeds - 1));
	printf("%sok 2 - %llu power cuts, of %llu wanted\n", t.cuts < a->cuts ? "not " : "",
	       N(t.cuts), N(a->cuts));
	printf("1..2\n");
	return t.failed || t.cuts < a->cuts;
}

static int trace_run(const struct arguments *a)
{
	struct job j = { .pid = 0 };
	struct plan_options o = { .seed = a->seed,
				  .cuts = a->cuts ? (unsigned)a->cuts : CUTS_PER_SEED,
				  .trace = true,
				  .has_bursts = !a->mutants && has_bursts(a->seed),
				  .mutant = a->mutant };

	job_start(&j, &o);
	(void)job_wait(&j, 1);
	if (job_end(&j) && !j.result.violations) {
		printf("# seed %llu: good, hash %016llx\n", N(a->seed), N(j.result.hash));
		return 0;
	}
	printf("# seed %llu: %s\n", N(a->seed), j.result.first_violation);
	return 1;
}

/* ---- mutants ---- */

enum verdict { NOT_RUN, CLEAN, CAUGHT };

/* The hunt for one mutant. A trial is seeds, one after the other, until one of them catches it; the
 * next trial begins with the next seed. */
struct hunt {
	unsigned trials, started, running;
	enum verdict of[HUNT_SEEDS];
	char why[sizeof(((struct plan_result *)NULL)->first_violation)]; /* the first time */
};

/* After how many seeds each trial ended, and how many have. *missed: one did not. */
static unsigned trials_read(const struct hunt *h, unsigned seeds[TRIALS], bool *missed)
{
	unsigned n = 0, length = 0;

	*missed = false;
	for (unsigned i = 0; i < h->started && h->of[i] && n < h->trials && !*missed; i++) {
		length++;
		if (h->of[i] == CAUGHT) {
			seeds[n++] = length;
			length = 0;
		} else {
			*missed = length == TRIAL_SEEDS;
		}
	}
	return n;
}

static enum verdict seed_run(uint64_t seed, const char *mutant, struct job *j)
{
	struct plan_options o = { .seed = seed, .cuts = CUTS_PER_SEED, .mutant = mutant };

	job_start(j, &o);
	(void)job_wait(j, 1);
	(void)job_end(j);
	return j->result.violations ? CAUGHT : CLEAN;
}

/* A seed that fails without any mutant proves nothing. `without` remembers. */
static void hunt_end(const struct arguments *a, struct hunt *h, struct job *j,
		     enum verdict without[HUNT_SEEDS])
{
	unsigned at = (unsigned)(j->seed - a->seed);
	struct job *own = j->result.violations && !without[at] ? calloc(1, sizeof(*own)) : NULL;

	h->running--;
	h->of[at] = j->result.violations ? CAUGHT : CLEAN;
	if (own)
		without[at] = seed_run(j->seed, NULL, own);
	if (own && without[at] == CAUGHT)
		printf("# seed %llu fails without a mutant: %s\n", N(j->seed),
		       own->result.first_violation);
	free(own);
	if (h->of[at] == CAUGHT && without[at] == CAUGHT)
		h->of[at] = CLEAN;
	if (h->of[at] == CAUGHT && !h->why[0])
		memcpy(h->why, j->result.first_violation, sizeof(h->why));
}

static void hunt(const struct arguments *a, const char *name, struct hunt *h,
		 enum verdict without[HUNT_SEEDS])
{
	struct job *jobs = calloc(JOBS_MAX, sizeof(*jobs));
	unsigned seeds[TRIALS];
	bool missed;

	for (;;) {
		bool is_over = trials_read(h, seeds, &missed) == h->trials || missed;

		for (unsigned i = 0; i < a->jobs && !is_over && h->started < HUNT_SEEDS; i++) {
			struct plan_options o = { .seed = a->seed + h->started,
						  .cuts = CUTS_PER_SEED,
						  .mutant = name };

			if (jobs[i].pid)
				continue;
			job_start(&jobs[i], &o);
			h->started++;
			h->running++;
		}
		if (!h->running)
			break;
		struct job *j = job_wait(jobs, a->jobs);

		(void)job_end(j);
		hunt_end(a, h, j, without);
	}
	free(jobs);
}

static int compare(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;

	return (x > y) - (x < y);
}

/* The median of its trials, 0: one of them did not catch it. */
static unsigned mutant_run(const struct arguments *a, const struct mutant *m, unsigned number,
			   enum verdict without[HUNT_SEEDS])
{
	struct hunt *h = calloc(1, sizeof(*h));
	unsigned seeds[TRIALS] = { 0 }, n;
	bool missed;

	h->trials = a->trials;
	hunt(a, m->name, h, without);
	n = trials_read(h, seeds, &missed);
	printf("%sok %u - %s (%s): caught after", n < h->trials ? "not " : "", number, m->name,
	       m->text);
	for (unsigned i = 0; i < n; i++)
		printf(" %u", seeds[i]);
	printf(n < h->trials ? " and then not in %u seeds\n" : " seeds\n", TRIAL_SEEDS);
	printf("#   %s\n", h->why[0] ? h->why : "never");
	fflush(stdout);
	free(h);
	qsort(seeds, n, sizeof(seeds[0]), compare);
	return n < a->trials ? 0 : seeds[n / 2];
}

static int mutants_run(const struct arguments *a)
{
	unsigned medians[ARRAY_LEN(mutants)], n = 0, number = 0;
	enum verdict *without = calloc(HUNT_SEEDS, sizeof(*without));

	for (const struct mutant *m = mutants; m->name; m++) {
		unsigned median;

		if (a->mutant && strcmp(a->mutant, m->name) != 0)
			continue;
		median = mutant_run(a, m, ++number, without);
		if (median)
			medians[n++] = median;
	}
	free(without);
	printf("1..%u\n", number);
	qsort(medians, n, sizeof(medians[0]), compare);
	if (n)
		printf("# %u of %u mutants caught in each of %u trials; of the medians the median "
		       "is %u seeds, the largest %u\n",
		       n, number, a->trials, medians[n / 2], medians[n - 1]);
	return n < number || !number;
}

static bool number_of(const char *text, uint64_t *out)
{
	char *end = NULL;

	if (!text || !*text)
		return false;
	*out = strtoull(text, &end, 10);
	return !*end;
}

static bool arguments_read(int argc, char **argv, struct arguments *a)
{
	for (int i = 1; i < argc; i++) {
		const char *next = i + 1 < argc ? argv[i + 1] : NULL;
		uint64_t n = 0;
		bool has_number = number_of(next, &n);

		if (strcmp(argv[i], "--trace") == 0) {
			a->trace = true;
		} else if (strcmp(argv[i], "--mutants") == 0) {
			a->mutants = true;
			if (next && next[0] != '-')
				a->mutant = argv[++i];
		} else if (!has_number) {
			return false;
		} else {
			i++;
			if (strcmp(argv[i - 1], "--seed") == 0)
				a->seed = n, a->has_seed = true;
			else if (strcmp(argv[i - 1], "--cuts") == 0)
				a->cuts = n;
			else if (strcmp(argv[i - 1], "--seconds") == 0)
				a->seconds = (unsigned)n;
			else if (strcmp(argv[i - 1], "--jobs") == 0 && n >= 1 && n <= JOBS_MAX)
				a->jobs = (unsigned)n;
			else if (strcmp(argv[i - 1], "--trials") == 0 && n >= 1 && n <= TRIALS)
				a->trials = (unsigned)n;
			else
				return false;
		}
	}
	return true;
}

int main(int argc, char **argv)
{
	struct arguments a = { .seed = 1, .jobs = 2, .trials = TRIALS };

	signal(SIGPIPE, SIG_IGN);
	if (!arguments_read(argc, argv, &a)) {
		fprintf(stderr, "usage: posthorn-sim [--seed N] [--cuts N] [--seconds N] [--jobs "
				"N] [--trace] "
				"[--mutants [NAME]] [--trials N]\n");
		return 2;
	}
	if (a.trace)
		return trace_run(&a);
	if (a.mutants)
		return mutants_run(&a);
	if (!a.cuts && !a.seconds)
		a.cuts = a.has_seed ? 1 : 500;
	return check_run(&a);
}
