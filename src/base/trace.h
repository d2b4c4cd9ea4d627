/* The events of a message's history; see trace.def. role_trace (roles/role.h) records them. */
#ifndef BASE_TRACE_H
#define BASE_TRACE_H

enum trace_event {
#define TRACE(name, number, sentence) TRACE_##name = number,
#include "base/trace.def"
#undef TRACE
};

#endif
