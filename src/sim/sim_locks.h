/* Ranges of a file that processes lock (fcntl). */
#ifndef SIM_SIM_LOCKS_H
#define SIM_SIM_LOCKS_H

#include "sim/sim_fs.h"

enum lock_kind { LOCK_NONE, LOCK_SHARED, LOCK_EXCLUSIVE };

/* The process that has a lock in the way; 0: none has. */
int lock_conflict(struct sim_inode *i, int process, bool is_exclusive, int64_t from, int64_t to);
/* Nobody's lock is in the way. `to`: behind the last byte. */
void lock_range(struct sim_inode *i, int process, enum lock_kind kind, int64_t from, int64_t to);

#endif
