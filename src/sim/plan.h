/* One seed's run: the server, its clients, the power cuts and other faults, and the checks. */
#ifndef SIM_PLAN_H
#define SIM_PLAN_H

#include "sim/sim.h"
#include "sim/world.h"

struct plan_options {
	uint64_t seed;
	unsigned cuts;
	bool trace;
	bool has_bursts;    /* no cuts, but a look for leaks */
	const char *mutant; /* or NULL */
};

/* Plain data: it travels through a pipe. */
struct plan_result {
	uint64_t seed, hash;
	unsigned cuts, kills, faults, violations;
	char first_violation[400];
	int64_t simulated_ns;
	struct world_counts counts;
	struct sim_counts sim;
};

void plan_run(const struct plan_options *o, struct plan_result *out);

#endif
