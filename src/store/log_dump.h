/* The log in readable form: `posthorn dump`. */
#ifndef STORE_LOG_DUMP_H
#define STORE_LOG_DUMP_H

#include "base/err.h"
#include "base/str.h"

struct log_dump_options {
	int dir;	  /* the store's */
	uint64_t account; /* what is this account's alone; 0: everything */
	str address;	  /* the same, by its address; empty: everything */
	uint32_t segment; /* 0: all */
	str kinds;	  /* letters of keys; empty: all */
	bool frames_only;
	void (*out)(void *arg, str text); /* a line or more */
	void *arg;
};

/* A line for each segment and frame, and one for each record that is asked for. Keys of bodies are
 * not shown. What is damaged is passed over with a line. Reads alone, also while a server runs
 * (then the end may be one that is just being written). ERR_NOT_FOUND: no store, or no such
 * account; ERR_DAMAGED: the identity is lost. */
MUST_USE enum err store_log_dump(const struct log_dump_options *o);

#endif
