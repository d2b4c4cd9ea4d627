/* What LIST and STATUS share. */
#ifndef IMAP_LIST_H
#define IMAP_LIST_H

#include "imap/session_priv.h"

/* "* STATUS name (...)" with enum imap_status_items. */
MUST_USE enum err imap_write_status(struct imap_session *s, uint32_t id, unsigned items,
				    struct buf *out);

#endif
