/* Mail addresses: the grammar of RFC 5321 4.1.2 with the UTF-8 of RFC 6531 3.3, and their canonical
 * form.
 *
 * The invariant: two texts get the same `key` exactly when mail for them goes to the same place, as
 * far as this host may say so. Everything that compares addresses in the directory compares keys,
 * byte by byte, so SQLite needs no collation of its own.
 *
 * An ASCII domain is only checked and put in lower case: this is the way of nearly every address
 * and costs no library call. Others go through libidn2 (UTS 46, non-transitional, as browsers do).
 * Domains are stored in their ASCII form and not as Unicode, since that is what DNS, certificates
 * and hosts without SMTPUTF8 use.
 *
 * The last '@' parts local part and domain: a domain cannot hold one, a quoted local part can.
 */
#include "auth/address.h"

#include "text/utf8.h"

#include <idn2.h>
#include <stdlib.h>
#include <unicase.h>
#include <uninorm.h>

/* Case folding makes at most three code points of one, and NFC of those is never longer. */
enum { LOCAL_KEY_MAX = AUTH_ADDRESS_LOCAL_MAX * 6 };

/* RFC 5322 3.2.3, and RFC 6531 3.3 adds everything beyond ASCII. */
static bool is_atext(char c)
{
	return ascii_is_alnum(c) || (unsigned char)c >= 0x80 ||
	       (c && strchr("!#$%&'*+-/=?^_`{|}~", c));
}

static bool is_dot_string(str s)
{
	if (s.n == 0 || s.p[0] == '.' || s.p[s.n - 1] == '.')
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '.' ? s.p[i - 1] == '.' : !is_atext(s.p[i]))
			return false;
	return true;
}

/* What a local part says, without its quoting, into `to`, which has room for s.n bytes. */
static enum err local_unquote(str s, char *to, size_t *n)
{
	*n = 0;
	if (is_dot_string(s)) {
		memcpy(to, s.p, s.n);
		*n = s.n;
		return ERR_OK;
	}
	/* RFC 5321 4.1.2: Quoted-string = DQUOTE *QcontentSMTP DQUOTE */
	if (s.n < 3 || s.p[0] != '"' || s.p[s.n - 1] != '"')
		return ERR_SYNTAX;
	for (size_t i = 1; i < s.n - 1; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c == '\\' && (++i == s.n - 1 || (unsigned char)s.p[i] >= 0x80))
			return ERR_SYNTAX;
		if (c == '"' || (unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
			return ERR_SYNTAX;
		to[(*n)++] = s.p[i];
	}
	return ERR_OK;
}

/* "local@domain" in the arena, the local part quoted where the grammar asks for it. */
static enum err join(str local, str domain, struct arena *a, str *whole)
{
	bool quote = !is_dot_string(local);
	char *p = arena_alloc(a, local.n * 2 + 2 + 1 + domain.n + 1);
	size_t n = 0;

	if (!p)
		return ERR_NO_MEMORY;
	*whole = str_of(p, 0);
	if (quote)
		p[n++] = '"';
	for (size_t i = 0; i < local.n; i++) {
		if (quote && (local.p[i] == '"' || local.p[i] == '\\'))
			p[n++] = '\\';
		p[n++] = local.p[i];
	}
	if (quote)
		p[n++] = '"';
	p[n++] = '@';
	if (domain.n)
		memcpy(p + n, domain.p, domain.n);
	whole->n = n + domain.n;
	return ERR_OK;
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

static bool is_ldh(str domain)
{
	if (domain.n == 0)
		return false; /* UTS 46 maps some characters to nothing */
	while (domain.n) {
		bool more = str_find_char(domain, '.') != STR_NONE;
		str label = str_cut(&domain, '.');

		/* RFC 5321 4.1.2: sub-domain = Let-dig [Ldh-str] */
		if (label.n == 0 || label.n > AUTH_ADDRESS_LABEL_MAX || label.p[0] == '-' ||
		    label.p[label.n - 1] == '-')
			return false;
		for (size_t i = 0; i < label.n; i++)
			if (!ascii_is_alnum(label.p[i]) && label.p[i] != '-')
				return false;
		if (more && domain.n == 0)
			return false; /* a dot at the end */
	}
	return true;
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
		return is_ldh(text) ? domain_lower(text, a, out) : ERR_SYNTAX;
	if (!utf8_is_valid(text) || str_find_char(text, '\0') != STR_NONE)
		return ERR_SYNTAX;
	copy = arena_str(a, text);
	if (!copy.p)
		return ERR_NO_MEMORY;
	/* RFC 5891 5.2, 5.3; RFC 6531 3.2 */
	rc = idn2_to_ascii_8z(copy.p, &ascii, IDN2_NONTRANSITIONAL | IDN2_NFC_INPUT);
	if (rc != IDN2_OK)
		return rc == IDN2_MALLOC ? ERR_NO_MEMORY : ERR_SYNTAX;
	err = is_ldh(str_from_c(ascii)) ? domain_lower(str_from_c(ascii), a, out) : ERR_SYNTAX;
	idn2_free(ascii);
	if (!err && out->n > AUTH_ADDRESS_DOMAIN_MAX)
		err = ERR_TOO_LONG;
	return err;
}

/* RFC 5321 4.1.3. What is inside is for the one who connects there. */
static bool is_literal(str s)
{
	if (s.n < 3 || s.p[0] != '[' || s.p[s.n - 1] != ']')
		return false;
	for (size_t i = 1; i < s.n - 1; i++)
		if (!ascii_is_alnum(s.p[i]) && s.p[i] != '.' && s.p[i] != ':' && s.p[i] != '-')
			return false;
	return true;
}

enum err auth_address_parse(str text, struct arena *a, struct auth_address *out)
{
	char said[AUTH_ADDRESS_MAX], folded[LOCAL_KEY_MAX];
	size_t at = str_rfind_char(text, '@'), said_n;
	str local, key_local, domain;
	enum err err;

	if (text.n > AUTH_ADDRESS_MAX)
		return ERR_TOO_LONG;
	if (at == STR_NONE || !utf8_is_valid(text))
		return ERR_SYNTAX;
	domain = str_from(text, at + 1);
	err = is_literal(domain) ? domain_lower(domain, a, &domain)
				 : auth_domain_parse(domain, a, &domain);
	if (!err)
		err = local_unquote(str_head(text, at), said, &said_n);
	if (err)
		return err;
	local = str_of(said, said_n);
	if ((err = local_fold(local, folded, &key_local)) ||
	    (err = join(local, domain, a, &out->whole)) ||
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
