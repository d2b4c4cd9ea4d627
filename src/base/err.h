/* Errors. What can fail returns an `enum err` and must be checked; results go through the last
 * pointer. ERR_OK is 0, so `if ((err = f()))` reads as "if f failed". */
#ifndef BASE_ERR_H
#define BASE_ERR_H

enum err {
#define ERR(name, text) ERR_##name,
#include "base/err.def"
#undef ERR
	ERR_COUNT
};

#define MUST_USE	  __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define UNUSED		  __attribute__((unused))

/* The name ("NOT_FOUND") and the meaning of an error; static storage. */
const char *err_name(enum err e);
const char *err_text(enum err e);

/* The error that best describes an errno of the operating system. */
enum err err_from_errno(int errnum);

/* Our bug: says where and aborts. `assert` stays on in every build and ends here as well. */
_Noreturn void panic(const char *fmt, ...) PRINTF_LIKE(1, 2);

#endif
