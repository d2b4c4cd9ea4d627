/* Chance from a seed (SplitMix64): the same seed gives the same run. */
#ifndef SIM_CHANCE_H
#define SIM_CHANCE_H

#include <stdbool.h>
#include <stdint.h>

struct chance {
	uint64_t state;
};

static inline uint64_t chance_next(struct chance *c)
{
	uint64_t z = (c->state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* 0 .. n - 1 */
static inline unsigned chance_below(struct chance *c, unsigned n)
{
	return (unsigned)(chance_next(c) % n);
}

static inline bool chance_in(struct chance *c, unsigned n)
{
	return chance_below(c, n) == 0;
}

#endif
