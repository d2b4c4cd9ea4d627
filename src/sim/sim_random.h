/* Chance: splitmix64. A stream of its own for each use, so that who is drawn for is not changed by
 * how much another draws. */
#ifndef SIM_SIM_RANDOM_H
#define SIM_SIM_RANDOM_H

#include "base/str.h"

struct sim_random {
	uint64_t state;
};

static inline uint64_t sim_random_mix(uint64_t v)
{
	v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
	v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
	return v ^ (v >> 31);
}

static inline uint64_t sim_random_next(struct sim_random *r)
{
	return sim_random_mix(r->state += 0x9e3779b97f4a7c15u);
}

/* 0 ... n - 1; n 0: 0. The bias of the remainder does not matter here. */
static inline uint64_t sim_random_below(struct sim_random *r, uint64_t n)
{
	return n ? sim_random_next(r) % n : 0;
}

static inline bool sim_random_chance(struct sim_random *r, unsigned in_1000)
{
	return sim_random_below(r, 1000) < in_1000;
}

#endif
