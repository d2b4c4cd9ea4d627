/* The trace: a line for what happens, with its simulated time. Every line goes into the hash, so
 * that two runs of one seed can be compared without being written down. */
#include "sim/sim_priv.h"

#include <stdarg.h>
#include <stdio.h>

enum { LINE_MAX_TEXT = 1000 };

void sim_trace(struct sim *s, const char *fmt, ...)
{
	char line[LINE_MAX_TEXT];
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	n = MAX(MIN(n, (int)sizeof(line) - 1), 0);
	for (int i = 0; i < n; i += 8) {
		uint64_t part = 0;

		memcpy(&part, line + i, (size_t)MIN(8, n - i));
		s->hash = (s->hash ^ part) * 0x9e3779b97f4a7c15u;
		s->hash ^= s->hash >> 32;
	}
	if (s->options.trace)
		printf("%10.6f %s\n", (double)s->now / SIM_SECOND, line);
}

uint64_t sim_trace_hash(const struct sim *s)
{
	return s->hash;
}
