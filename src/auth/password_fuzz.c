/* Stored passwords, as an administrator's import may hold them: never more than the limits, and
 * PLAIN entries, which cost nothing, are verified as well. Addresses and SASLprep take the same
 * bytes. */
#include "auth/address.h"
#include "auth/password.h"
#include "auth/saslprep.h"

#include <assert.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void addresses(str text, struct arena *a)
{
	struct auth_address one, again;

	if (auth_address_parse(text, a, &one))
		return;
	/* Canonical: parsing what came out changes nothing. */
	assert(auth_address_parse(one.whole, a, &again) == ERR_OK);
	assert(str_eq(one.whole, again.whole) && str_eq(one.key, again.key));
	if (auth_address_parse(one.key, a, &again) != ERR_TOO_LONG)
		assert(str_eq(one.key, again.key));
}

static void preparation(str text)
{
	char out[SASLPREP_INPUT_MAX], twice[SASLPREP_INPUT_MAX];
	size_t n, m;

	if (saslprep(text, out, sizeof(out), &n))
		return;
	assert(saslprep(str_of(out, n), twice, sizeof(twice), &m) != ERR_OK ||
	       str_eq(str_of(out, n), str_of(twice, m)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *a = arena_new(1 << 20);
	enum password_scheme scheme;
	str text = str_of(data, size), rest;

	if (!a)
		return 0;
	if (!password_check_stored(text) && !password_scheme_of(text, &scheme, &rest) &&
	    scheme == PASSWORD_PLAIN)
		assert(password_verify(text, rest) == ERR_OK);
	addresses(text, a);
	preparation(text);
	arena_free(a);
	return 0;
}
