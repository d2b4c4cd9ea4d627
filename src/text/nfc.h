/* Unicode normalisation form C (UAX 15): the form in which names are stored. */
#ifndef TEXT_NFC_H
#define TEXT_NFC_H

#include "base/buf.h"

/* ERR_SYNTAX when s is not UTF-8. ASCII is copied. */
MUST_USE enum err nfc_normalise(str s, struct buf *out);

#endif
