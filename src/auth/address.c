/* Mail addresses: their canonical forms. The grammar is mime/address.h's, so that what SMTP took in
 * RCPT is not read in another way here.
 *
 * The invariant: two texts get the same `key` exactly when mail for them goes to the same place, as
 * far as this host may say so. Everything that compares addresses in the directory compares keys,
 * byte by byte, so SQLite needs no collation of its own.
 *
 * An ASCII domain is only checked and put in lower case: this is the way of nearly every address
 * and costs no library call. Others go through libidn2 (UTS 46, non-transitional, as browsers do).
 * Domains are stored in their ASCII form and not as Unicode, since that is what DNS, certificates
 * and hosts without SMTPUTF8 use.
 */
#include "auth/address.h"

#include "mime/address.h"
#include "text/utf8.h"

#include <idn2.h>
#include <stdlib.h>
#include <unicase.h>
#include <uninorm.h>

/* Case folding makes at most three code points of one, and NFC of those is never longer. */
enum {
	LOCAL_KEY_MAX = AUTH_ADDRESS_LOCAL_MAX * 6,
	JOINED_MAX = 2 * LOCAL_KEY_MAX + 4 + AUTH_ADDRESS_DOMAIN_MAX
};

/* "local@domain" in the arena, the local part quoted where the grammar asks for it. */
static enum err join(str local, str domain, struct arena *a, str *whole)
{
	struct buf text;

	buf_init(&text, JOINED_MAX);
	addr_write((struct addr_spec){ .local = local, .domain = domain }, &text);
	*whole = buf_failed(&text) ? STR_EMPTY : arena_str(a, buf_str(&text));
	buf_free(&text);
	return whole->p ? ERR_OK : ERR_NO_MEMORY;
}

static enum err local_fold(str local, char to[LOCAL_KEY_MAX], str *out)
{
	size_t n = LOCAL_KEY_MAX;
	uint8_t *folded;

	if (utf8_is_ascii(local)) {
		for (size_t i = 0; i < local.n; i++)
			to[i] = ascii_lower(local.p[i]);
		*out = str_of(to, local.n);
		return ERR_OK;
	}
	folded = u8_casefold((const uint8_t *)local.p, local.n, NULL, UNINORM_NFC, (uint8_t *)to,
			     &n);
	if (!folded)
		return ERR_NO_MEMORY;
	if (folded != (uint8_t *)to) {
		free(folded);
		return ERR_TOO_LONG;
	}
	*out = str_of(to, n);
	return ERR_OK;
}

static enum err domain_lower(str text, struct arena *a, str *out)
{
	char *p = arena_alloc(a, text.n + 1);

	if (!p)
		return ERR_NO_MEMORY;
	for (size_t i = 0; i < text.n; i++)
		p[i] = ascii_lower(text.p[i]);
	*out = str_of(p, text.n);
	return ERR_OK;
}

enum err auth_domain_parse(str text, struct arena *a, str *out)
{
	char *ascii = NULL;
	enum err err;
	str copy;
	int rc;

	if (text.n == 0)
		return ERR_SYNTAX;
	if (text.n > AUTH_ADDRESS_DOMAIN_MAX)
		return ERR_TOO_LONG;
	if (utf8_is_ascii(text))
		return addr_domain_is_valid(text) ? domain_lower(text, a, out) : ERR_SYNTAX;
	if (!addr_domain_is_valid(text))
		return ERR_SYNTAX;
	copy = arena_str(a, text);
	if (!copy.p)
		return ERR_NO_MEMORY;
	/* RFC 5891 5.2, 5.3; RFC 6531 3.2 */
	rc = idn2_to_ascii_8z(copy.p, &ascii, IDN2_NONTRANSITIONAL | IDN2_NFC_INPUT);
	if (rc != IDN2_OK)
		return rc == IDN2_MALLOC ? ERR_NO_MEMORY : ERR_SYNTAX;
	/* UTS 46 maps some characters to nothing. */
	err = addr_domain_is_valid(str_from_c(ascii)) ? domain_lower(str_from_c(ascii), a, out)
						      : ERR_SYNTAX;
	idn2_free(ascii);
	if (!err && out->n > AUTH_ADDRESS_DOMAIN_MAX)
		err = ERR_TOO_LONG;
	return err;
}

enum err auth_address_parse(str text, struct arena *a, struct auth_address *out)
{
	char folded[LOCAL_KEY_MAX];
	struct addr_spec spec;
	str key_local, domain;
	enum err err;

	if (text.n > AUTH_ADDRESS_MAX)
		return ERR_TOO_LONG;
	if ((err = addr_spec_parse(text, ADDR_ALLOW_UTF8, a, &spec)))
		return err;
	if (spec.local.n == 0)
		return ERR_SYNTAX; /* "" in quotes: nobody's, and nothing to match by */
	err = str_starts(spec.domain, S("[")) ? domain_lower(spec.domain, a, &domain)
					      : auth_domain_parse(spec.domain, a, &domain);
	if (err || (err = local_fold(spec.local, folded, &key_local)) ||
	    (err = join(spec.local, domain, a, &out->whole)) ||
	    (err = join(key_local, domain, a, &out->key)))
		return err;
	out->local = str_head(out->whole, out->whole.n - domain.n - 1);
	out->key_local = str_head(out->key, out->key.n - domain.n - 1);
	out->domain = str_from(out->whole, out->whole.n - domain.n);
	if (out->local.n > AUTH_ADDRESS_LOCAL_MAX || out->whole.n > AUTH_ADDRESS_MAX)
		return ERR_TOO_LONG;
	return ERR_OK;
}

enum err auth_address_join(str key_local, str domain, struct arena *a, str *key)
{
	return key_local.n ? join(key_local, domain, a, key) : ERR_SYNTAX;
}
