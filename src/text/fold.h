/* Case folding for comparison: the collation i;unicode-casemap (RFC 5051), which SEARCH and SORT
 * use.
 *
 * Two strings are equal when their folds are the same bytes; one contains another when its fold
 * contains the other's. Input that is not UTF-8 is folded byte for byte (RFC 5051 2.2 puts invalid
 * strings outside; we keep comparing them). */
#ifndef TEXT_FOLD_H
#define TEXT_FOLD_H

#include "base/buf.h"

void fold_casemap(str s, struct buf *out);

/* For text that comes in pieces: returns how many bytes of s were folded; fewer than s.n only when
 * s ends inside a character, whose bytes the caller passes again in front of the next piece. */
size_t fold_casemap_piece(str s, struct buf *out);

#endif
