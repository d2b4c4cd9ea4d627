/* Stored passwords. The vectors were made by other software: argon2 by libsodium (which Dovecot
 * uses for ARGON2ID), crypt(3) by Python's crypt module, SCRAM by Python's hashlib; that of RFC
 * 7677 3 by its authors. */
#include "auth/password.h"
#include "auth/scram.h"

#include "base/tap.h"

#include <stdio.h>

static const char argon2id[] = "{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$VeW5YltpvN8fO+Qr+FTaKg$"
			       "cU8j46F2BaT9srWDJp1KfAPc+nQeaeOeO6dnilBZq4M";

static void vectors(void)
{
	static const char *const stored[] = {
		argon2id,
		"{ARGON2I}$argon2i$v=19$m=128,t=3,p=1$i96YZmYIN+XAw5l7UUTrPw$"
		"nu/akWb3oGZcDs3sKBSfOyF1tf0xczOXa9V7r9ztykE",
		"{SHA512-CRYPT}$6$saltstring$."
		"r0X7ub5wGR2v4Xz7svCIozfnlorFh19V89t8KC9Umd81uGhFgsyTRNyzQDXDIm17fFcR9z3z7o"
		"BNdsyYBbtm/",
		"{SHA512-CRYPT}$6$rounds=2000$saltsalt$7XWe94aKSpXdt."
		"mcPX0mtZOfDsLLLsXv9fC9Aqw7RMWEmNHLdnQ.qvDmFRka50Gf"
		"ByRK./c7TgsH1Npt3Yldk1",
		"{sha256-crypt}$5$saltstring$vc6YOOogU4kWVvwga8e9zTFgKcy4tb5LaPxIiPJzqEC",
		"{BLF-CRYPT}$2y$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2",
		"{CRYPT}$2y$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2",
		"{CRYPT}$y$j75$saltsaltsalt$zQziiNee/3jd.PJJvsNgy7GH5uO3HbsUNcQ3Jsopj2B",
		"$gy$j75$saltsaltsalt$FFlUW4u5Fz1YAdX9ElppYGjZh5FS2ScZyN0lLH9gyh0",
		"$7$86..../....saltsalt$YRaY0fP883D6hIEBaaHPU6xe4ZDV3Y0u3eBaRRIiFw7",
		"$1$saltsalt$NuzA7WTAelpl95xgBGWN60",
		"{SCRAM-SHA-256}4096,MDEyMzQ1Njc4OWFiY2RlZg==,"
		"tSgetjYW5SQlNzIxJAKMryuDGH8Snw5oWcj1eOW0ZyI=,"
		"bbZ1dJMgYYaKKR1fU1oGHkWJzi9OQY4yU8Fuksa1t70=",
		"{PLAIN}correct horse",
		"{CLEARTEXT}correct horse",
	};

	tap_group("made by others");
	for (size_t i = 0; i < ARRAY_LEN(stored); i++) {
		EQ(password_check_stored(str_from_c(stored[i])), ERR_OK);
		EQ(password_verify(str_from_c(stored[i]), S("correct horse")), ERR_OK);
		EQ(password_verify(str_from_c(stored[i]), S("correct horsf")), ERR_AUTH);
		EQ(password_verify(str_from_c(stored[i]), S("correct hors")), ERR_AUTH);
		EQ(password_verify(str_from_c(stored[i]), S("")), ERR_AUTH);
	}
	/* DES looks at eight characters, and is read all the same. */
	EQ(password_verify(S("abhfCpXqd4GrI"), S("correct horse")), ERR_OK);
	EQ(password_verify(S("abhfCpXqd4GrI"), S("korrect horse")), ERR_AUTH);
	EQ(password_verify(S("{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,"
			     "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
			     "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="),
			   S("pencil")),
	   ERR_OK);
}

struct answer {
	str stored;
	enum err err;
};

static void refusals(void)
{
	static const struct answer rows[] = {
		{ S(""), ERR_UNSUPPORTED },
		{ S("{CRYPT}"), ERR_UNSUPPORTED },
		{ S("{"), ERR_SYNTAX },
		{ S("{PLAIN"), ERR_SYNTAX },
		{ S("{PLAIN}"), ERR_SYNTAX },
		{ S("{}x"), ERR_UNSUPPORTED },
		{ S("{MD5}x"), ERR_UNSUPPORTED },
		{ S("{PLAIN.HEX}70"), ERR_UNSUPPORTED },
		{ S("$3$$cfc43211ba8dc470832267827cac1407"), ERR_UNSUPPORTED },
		{ S("_J9..saltGomPeRUt8OA"), ERR_UNSUPPORTED },
		{ S("{SHA512-CRYPT}$5$saltstring$x"), ERR_SYNTAX },
		{ S("{BLF-CRYPT}$6$saltstring$x"), ERR_SYNTAX },
		{ S("$6$salt\nx$x"), ERR_SYNTAX },
		{ S("$6$rounds=1000000$s$x"), ERR_OK },
		{ S("$6$rounds=1000001$s$x"), ERR_RANGE },
		{ S("$6$rounds=99999999999999999999$s$x"), ERR_RANGE },
		{ S("$6$rounds=x$s$x"), ERR_SYNTAX },
		{ S("$2b$15$x"), ERR_OK },
		{ S("$2b$16$x"), ERR_RANGE },
		{ S("$2b$1$x"), ERR_SYNTAX },
		{ S("$y$jDT$saltsalt$x"), ERR_OK },    /* 1 << 16, r = 32: 256 MiB */
		{ S("$y$jET$saltsalt$x"), ERR_RANGE }, /* 512 MiB */
		{ S("$y$j9T..$saltsalt$x"), ERR_UNSUPPORTED },
		{ S("$y$"), ERR_SYNTAX },
		{ S("$y$zzzz"), ERR_SYNTAX },
		{ S("$7$zzzzzzzzzzz"), ERR_RANGE },
		{ S("$7$C6...."), ERR_SYNTAX },
		{ S("{ARGON2ID}$argon2id$v=19$m=262144,t=4,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"),
		  ERR_OK },
		{ S("{ARGON2ID}$argon2id$v=19$m=262144,t=5,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"),
		  ERR_RANGE },
		{ S("{ARGON2ID}$argon2id$v=19$m=262145,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"),
		  ERR_RANGE },
		{ S("{ARGON2ID}$argon2id$v=19$m=7,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"),
		  ERR_RANGE },
		{ S("{ARGON2ID}$argon2id$v=19$m=1024,t=1,p=17$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"),
		  ERR_RANGE },
		{ S("{ARGON2ID}$argon2id$v=19$m=1024,t=0,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"),
		  ERR_RANGE },
		{ S("{ARGON2ID}$argon2id$v=16$m=1024,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"),
		  ERR_UNSUPPORTED },
		{ S("{ARGON2ID}$argon2i$v=19$m=1024,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"),
		  ERR_SYNTAX },
		{ S("{ARGON2ID}$argon2id$v=19$m=1024,t=1,p=1$c2FsdHNhbHQ=$AAAAAAAAAAAAAAAAAAAAAA"),
		  ERR_SYNTAX },
		{ S("{ARGON2ID}$argon2id$v=19$m=1024,t=1,p=1$c2FsdHNhbHQ$AAAA"), ERR_SYNTAX },
		{ S("{ARGON2ID}$argon2id$v=19$m=1024,t=1,p=1$c2Fs$AAAAAAAAAAAAAAAAAAAAAA"),
		  ERR_SYNTAX },
		{ S("{SCRAM-SHA-256}4096,c2FsdA==,AAAA,AAAA"), ERR_SYNTAX },
		{ S("{SCRAM-SHA-256}0,c2FsdA==,AAAA,AAAA"), ERR_RANGE },
		{ S("{SCRAM-SHA-256}2000001,c2FsdA==,AAAA,AAAA"), ERR_RANGE },
		{ S("{CRYPT}!"), ERR_OK },
		{ S("*"), ERR_OK },
	};
	char big[PASSWORD_STORED_MAX + 1];

	tap_group("refused");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (!EQ(password_check_stored(rows[i].stored), rows[i].err))
			tap_str("for", rows[i].stored);
		if (rows[i].err)
			EQ(password_verify(rows[i].stored, S("x")), rows[i].err);
	}
	EQ(password_verify(S("{CRYPT}!"), S("!")), ERR_AUTH);
	EQ(password_verify(S("*0"), S("*0")), ERR_AUTH);
	EQ(password_verify(S("$2b$05$x"), S("x")), ERR_SYNTAX);
	memset(big, 'x', sizeof(big));
	EQ(password_check_stored(str_of(big, sizeof(big))), ERR_TOO_LONG);
	EQ(password_verify(S("{PLAIN}a"), S("a\0b")), ERR_AUTH);
}

static void making(struct arena *a)
{
	static const enum password_scheme made[] = {
		PASSWORD_ARGON2ID,  PASSWORD_SHA512_CRYPT, PASSWORD_SHA256_CRYPT,
		PASSWORD_BLF_CRYPT, PASSWORD_CRYPT,	   PASSWORD_SCRAM_SHA_256,
		PASSWORD_PLAIN,
	};
	uint8_t random[PASSWORD_RANDOM_SIZE];
	struct password_record record, other;
	enum password_scheme scheme;
	str rest;

	for (size_t i = 0; i < sizeof(random); i++)
		random[i] = (uint8_t)(i * 37);
	tap_group("made here");
	for (size_t i = 0; i < ARRAY_LEN(made); i++) {
		/* Full-width letters and a composed accent: what a client sends after SASLprep. */
		EQ(password_make(made[i], S("\uFF41be\u0301"), random, a, &record), ERR_OK);
		EQ(password_scheme_of(record.hash, &scheme, &rest), ERR_OK);
		EQ(scheme, made[i]);
		EQ(password_verify(record.hash, S("ab\u00E9")), ERR_OK);
		EQ(password_verify(record.hash, S("\uFF41be\u0301")), ERR_OK);
		EQ(password_verify(record.hash, S("abe")), ERR_AUTH);
		EQ(record.scram.n > 0, made[i] == PASSWORD_ARGON2ID);
	}
	EQ(password_make(PASSWORD_ARGON2ID, S("secret"), random, a, &record), ERR_OK);
	OK(str_starts(record.hash, S("{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$")));
	OK(str_starts(record.scram, S("{SCRAM-SHA-256}60000,")));
	EQ(password_verify(record.scram, S("secret")), ERR_OK);
	EQ(password_verify(record.scram, S("Secret")), ERR_AUTH);
	random[0]++;
	random[16]++;
	EQ(password_make(PASSWORD_ARGON2ID, S("secret"), random, a, &other), ERR_OK);
	OK(!str_eq(record.hash, other.hash));
	OK(!str_eq(record.scram, other.scram));
	/* A hash of bytes that are not SASLprep's, as other software made it. */
	EQ(password_verify(S("{PLAIN}be\u0301"), S("be\u0301")), ERR_OK);
	EQ(password_verify(S("{PLAIN}\xE9"), S("\xE9")), ERR_OK);

	tap_group("not made");
	EQ(password_make(PASSWORD_ARGON2I, S("x"), random, a, &record), ERR_UNSUPPORTED);
	EQ(password_make(PASSWORD_PLAIN, S(""), random, a, &record), ERR_SYNTAX);
	EQ(password_make(PASSWORD_PLAIN, S("a\0b"), random, a, &record), ERR_SYNTAX);
	EQ(password_make(PASSWORD_PLAIN, S("\u00AD"), random, a, &record), ERR_SYNTAX);
	EQ(password_make(PASSWORD_PLAIN, S("a\tb"), random, a, &record), ERR_SYNTAX);
}

static void sizes(struct arena *a)
{
	static const enum password_scheme made[] = { PASSWORD_ARGON2ID, PASSWORD_CRYPT,
						     PASSWORD_PLAIN };
	static const uint8_t random[PASSWORD_RANDOM_SIZE] = { 1 };
	char long_one[PASSWORD_MAX + 1];
	struct password_record record;

	tap_group("sizes");
	memset(long_one, 'p', sizeof(long_one));
	for (size_t i = 0; i < ARRAY_LEN(made); i++) {
		EQ(password_make(made[i], str_of(long_one, PASSWORD_MAX), random, a, &record),
		   ERR_OK);
		EQ(password_verify(record.hash, str_of(long_one, PASSWORD_MAX)), ERR_OK);
		EQ(password_verify(record.hash, str_of(long_one, PASSWORD_MAX - 1)), ERR_AUTH);
		EQ(password_verify(record.hash, str_of(long_one, PASSWORD_MAX + 1)), ERR_AUTH);
		EQ(password_make(made[i], str_of(long_one, PASSWORD_MAX + 1), random, a, &record),
		   ERR_TOO_LONG);
	}
}

static void generating(void)
{
	static const uint8_t zeros[PASSWORD_GENERATED_RANDOM] = { 0 };
	uint8_t random[PASSWORD_GENERATED_RANDOM] = { 0x00, 0x44, 0x32, 0x14, 0xc7,
						      0xff, 0xff, 0xff, 0xff, 0xff };
	char out[PASSWORD_GENERATED_SIZE];

	tap_group("generated");
	password_generate(zeros, out);
	STR_EQ(str_of(out, sizeof(out)), S("0000-0000-0000-0000"));
	password_generate(random, out);
	STR_EQ(str_of(out, sizeof(out)), S("0123-4567-zzzz-zzzz"));
	random[9] = 0xfe;
	password_generate(random, out);
	STR_EQ(str_of(out, sizeof(out)), S("0123-4567-zzzz-zzzy"));
}

int main(void)
{
	struct arena *a = arena_new(1 << 20), *small = arena_new(16);
	struct password_record record;
	static const uint8_t random[PASSWORD_RANDOM_SIZE] = { 1 };

	vectors();
	refusals();
	making(a);
	sizes(a);
	generating();
	tap_group("nobody");
	EQ(password_verify_nobody(S("x")), ERR_AUTH);
	EQ(password_verify_nobody(S("")), ERR_AUTH);
	EQ(password_make(PASSWORD_ARGON2ID, S("x"), random, small, &record), ERR_NO_MEMORY);
	arena_free(small);
	arena_free(a);
	return tap_done();
}
