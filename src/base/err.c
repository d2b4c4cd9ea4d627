/* Names of errors, and the end of the process for our own bugs. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const char *err_name(enum err e)
{
	static const char *const names[ERR_COUNT] = {
#define ERR(name, text) #name,
#include "base/err.def"
#undef ERR
	};
	return (unsigned)e < ERR_COUNT ? names[e] : "UNKNOWN";
}

const char *err_text(enum err e)
{
	static const char *const texts[ERR_COUNT] = {
#define ERR(name, text) text,
#include "base/err.def"
#undef ERR
	};
	return (unsigned)e < ERR_COUNT ? texts[e] : "an unknown error";
}

enum err err_from_errno(int errnum)
{
	switch (errnum) {
	case 0:
		return ERR_OK;
	case EAGAIN:
	case EINTR:
	case EINPROGRESS:
		return ERR_AGAIN;
	case EPIPE:
	case ECONNRESET:
	case ENOTCONN:
	case EBADF:
		return ERR_CLOSED;
	case ETIMEDOUT:
		return ERR_TIMEOUT;
	case ENOMEM:
	case ENOBUFS:
		return ERR_NO_MEMORY;
	case ENOENT:
	case ENOTDIR:
		return ERR_NOT_FOUND;
	case EEXIST:
	case ENOTEMPTY:
		return ERR_EXISTS;
	case EACCES:
	case EPERM:
	case EROFS:
		return ERR_DENIED;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return ERR_FULL;
	case EMFILE:
	case ENFILE:
		return ERR_TOO_MANY;
	case EMSGSIZE:
	case ENAMETOOLONG:
		return ERR_TOO_LONG;
	case EADDRINUSE:
	case EBUSY:
		return ERR_BUSY;
	case ECONNREFUSED:
	case EHOSTUNREACH:
	case ENETUNREACH:
		return ERR_TEMPORARY;
	default:
		return ERR_IO;
	}
}

void panic(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("panic: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	abort();
}
