/* The cache of logins: what is a hit, and all that ends one. */
#include "auth/logincache.h"
#include "auth/password.h"

#include "base/tap.h"

static const uint8_t key[LOGINCACHE_KEY_SIZE] = { 3, 1, 4 };

int main(void)
{
	struct logincache *c = logincache_new(4, key);
	int64_t now = 1000;
	char big[PASSWORD_STORED_MAX + 1];

	tap_group("hits");
	OK(!logincache_has(c, now, 1, 7, S("hash"), S("secret")));
	logincache_add(c, now, 1, 7, S("hash"), S("secret"));
	OK(logincache_has(c, now, 1, 7, S("hash"), S("secret")));
	OK(!logincache_has(c, now, 1, 8, S("hash"), S("secret")));
	OK(!logincache_has(c, now, 1, 7, S("other"), S("secret")));
	OK(!logincache_has(c, now, 1, 7, S("hash"), S("Secret")));
	OK(!logincache_has(c, now, 1, 7, S("hashs"), S("ecret")));
	OK(!logincache_has(c, now, 1, 7, S("hash"), S("")));

	tap_group("time");
	OK(logincache_has(c, now + LOGINCACHE_NS - 1, 1, 7, S("hash"), S("secret")));
	OK(!logincache_has(c, now + LOGINCACHE_NS, 1, 7, S("hash"), S("secret")));
	EQ(logincache_count(c), 0);
	logincache_add(c, now, 1, 7, S("hash"), S("secret"));
	logincache_add(c, now + 5, 1, 7, S("hash"), S("secret"));
	EQ(logincache_count(c), 1);
	OK(logincache_has(c, now + LOGINCACHE_NS, 1, 7, S("hash"), S("secret")));

	tap_group("a change of the directory");
	OK(!logincache_has(c, now, 2, 7, S("hash"), S("secret")));
	EQ(logincache_count(c), 0);
	logincache_add(c, now, 2, 7, S("hash"), S("secret"));
	logincache_add(c, now, 3, 8, S("hash"), S("secret"));
	EQ(logincache_count(c), 1);

	tap_group("bounded");
	for (uint64_t id = 10; id < 14; id++)
		logincache_add(c, now, 3, id, S("hash"), S("secret"));
	EQ(logincache_count(c), 4);
	OK(!logincache_has(c, now, 3, 8, S("hash"), S("secret")));
	OK(logincache_has(c, now, 3, 10, S("hash"), S("secret"))); /* now the newest */
	logincache_add(c, now, 3, 14, S("hash"), S("secret"));
	OK(!logincache_has(c, now, 3, 11, S("hash"), S("secret")));
	OK(logincache_has(c, now, 3, 10, S("hash"), S("secret")));
	memset(big, 'x', sizeof(big));
	logincache_add(c, now, 3, 15, str_of(big, sizeof(big)), S("secret"));
	OK(!logincache_has(c, now, 3, 15, str_of(big, sizeof(big)), S("secret")));
	logincache_free(c);
	return tap_done();
}
