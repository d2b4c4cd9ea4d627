/* NFC (UAX 15) through libunistring, which knows the tables. ASCII is its own normal form and is
 * most of what comes here. The invariant: what is written is valid UTF-8 and normal, so a second
 * pass changes nothing. */
#include "text/nfc.h"

#include "text/utf8.h"

#include <stdlib.h>
#include <uninorm.h>

enum err nfc_normalise(str s, struct buf *out)
{
	uint8_t *normal;
	size_t n = 0;

	if (!utf8_is_valid(s))
		return ERR_SYNTAX;
	if (utf8_is_ascii(s)) {
		buf_add(out, s);
		return buf_failed(out) ? ERR_NO_MEMORY : ERR_OK;
	}
	normal = u8_normalize(UNINORM_NFC, (const uint8_t *)s.p, s.n, NULL, &n);
	if (!normal)
		return ERR_NO_MEMORY;
	buf_add(out, str_of(normal, n));
	free(normal);
	return buf_failed(out) ? ERR_NO_MEMORY : ERR_OK;
}
