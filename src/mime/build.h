/* Building messages of our own: bounces and other reports (RFC 3464, 6522).
 *
 * Everything is appended to a buf, with CRLF. Nothing here reads a clock or makes random numbers:
 * times and random bytes are parameters, so that a test gets the same message twice. Values may be
 * any UTF-8; CR, LF and NUL in them become spaces, so no value can add a field. A full buf is found
 * with buf_failed.
 *
 *	build_field(out, S("Subject"), S("Undelivered mail"));
 *	build_multipart(out, S("report"), S("; report-type=delivery-status"), boundary);
 *	build_part(out, boundary, S("text/plain; charset=utf-8"), S("8bit"));
 *	buf_add(out, text);
 *	build_part(out, boundary, S("message/delivery-status"), S(""));
 *	...
 *	build_end(out, boundary);
 */
#ifndef MIME_BUILD_H
#define MIME_BUILD_H

#include "mime/address.h"
#include "text/date.h"

/* RFC 5322 2.1.1: lines should be no longer than 78. */
#define BUILD_LINE	   78
#define BUILD_RANDOM	   16 /* bytes of randomness for boundaries and Message-IDs */
#define BUILD_BOUNDARY_MAX 48

/* "Name: value", for unstructured values: folded, and encoded (RFC 2047) where it is not ASCII. */
void build_field(struct buf *out, str name, str value);

/* For structured values made of ASCII (parameters, ids, "rfc822; a@b"): folded at spaces, never
 * encoded. */
void build_structured(struct buf *out, str name, str value);

/* "From: Name <address>"; the name may be empty and may be UTF-8. */
void build_address(struct buf *out, str field, str name, struct addr_spec address);

void build_date(struct buf *out, struct date when);

/* "Message-ID: <time.random@host>" */
void build_message_id(struct buf *out, struct date when, const unsigned char random[BUILD_RANDOM],
		      str host);

/* A boundary that no text holds by chance. Returns a slice of `to`. */
str build_boundary(char to[BUILD_BOUNDARY_MAX], const unsigned char random[BUILD_RANDOM]);

/* MIME-Version, Content-Type: multipart/SUBTYPE with the boundary and the parameters (each ";
 * a=b"), and the empty line. */
void build_multipart(struct buf *out, str subtype, str params, str boundary);

/* The beginning of a part with its fields and the empty line. An empty encoding writes no field. */
void build_part(struct buf *out, str boundary, str type, str encoding);

void build_end(struct buf *out, str boundary);

#endif
