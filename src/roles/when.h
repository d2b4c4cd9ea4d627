/* Times on the command line: how long ago ("3d", "12h", "30m", "90s", "2w"), or a day or time in
 * UTC ("2026-11-20", "2026-11-20T08:30", "2026-11-20T08:30:00Z"). */
#ifndef ROLES_WHEN_H
#define ROLES_WHEN_H

#include "base/str.h"

/* Microseconds since 1970. ERR_SYNTAX. */
MUST_USE enum err when_parse(str text, int64_t now_us, uint64_t *us);

#endif
