/* SCRAM-SHA-256 arithmetic: the example of RFC 7677 3, and the stored form. */
#include "auth/scram.h"

#include "base/tap.h"
#include "text/base64.h"

static void from64(str text, uint8_t *out, size_t n)
{
	struct buf b;

	buf_init(&b, 256);
	EQ(base64_decode(text, &b), ERR_OK);
	EQ(buf_len(&b), n);
	memcpy(out, buf_str(&b).p, n);
	buf_free(&b);
}

static void rfc7677(void)
{
	str message = S("n=user,r=rOprNGfwEbeRWgbNEkqO,"
			"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s="
			"W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
			"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
	uint8_t salt[16], proof[SCRAM_KEY_SIZE], signature[SCRAM_KEY_SIZE], wanted[SCRAM_KEY_SIZE];
	struct scram_credentials c;

	tap_group("RFC 7677 3");
	from64(S("W22ZaJ0SNY7soEsUEjb6gQ=="), salt, sizeof(salt));
	from64(S("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="), proof, sizeof(proof));
	from64(S("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), wanted, sizeof(wanted));
	EQ(scram_derive(S("pencil"), str_of(salt, sizeof(salt)), 4096, &c), ERR_OK);
	OK(scram_proof_is_right(&c, message, proof));
	EQ(scram_server_signature(&c, message, signature), ERR_OK);
	EQ(memcmp(signature, wanted, sizeof(wanted)), 0);
	for (size_t i = 0; i < sizeof(proof); i += 7) {
		proof[i] ^= 1;
		OK(!scram_proof_is_right(&c, message, proof));
		proof[i] ^= 1;
	}
	OK(!scram_proof_is_right(&c, str_head(message, message.n - 1), proof));
	EQ(scram_derive(S("pencil "), str_of(salt, sizeof(salt)), 4096, &c), ERR_OK);
	OK(!scram_proof_is_right(&c, message, proof));
}

static void text(void)
{
	str stored = S("4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
		       "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=");
	static const str broken[] = {
		S(""),
		S("4096"),
		S("4096,,,"),
		S("x,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
		  "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="),
		S("4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
		  "AAAA"),
		S("4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
		  "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=,more"),
	};
	struct scram_credentials c;
	struct buf out;

	tap_group("stored form");
	buf_init(&out, SCRAM_TEXT_MAX);
	EQ(scram_parse(stored, &c), ERR_OK);
	EQ(c.iterations, 4096);
	EQ(c.salt_size, 16);
	EQ(scram_print(&c, &out), ERR_OK);
	STR_EQ(buf_str(&out), stored);
	buf_free(&out);
	for (size_t i = 0; i < ARRAY_LEN(broken); i++)
		EQ(scram_parse(broken[i], &c), ERR_SYNTAX);
}

static void limits(void)
{
	uint8_t salt[SCRAM_SALT_MAX + 1] = { 0 };
	struct scram_credentials c;

	tap_group("limits");
	EQ(scram_derive(S("x"), str_of(salt, SCRAM_SALT_MAX), 1, &c), ERR_OK);
	EQ(scram_derive(S("x"), str_of(salt, SCRAM_SALT_MAX + 1), 1, &c), ERR_RANGE);
	EQ(scram_derive(S("x"), str_of(salt, 0), 1, &c), ERR_RANGE);
	EQ(scram_derive(S("x"), str_of(salt, 1), 0, &c), ERR_RANGE);
	EQ(scram_derive(S("x"), str_of(salt, 1), SCRAM_ITERATIONS_MAX + 1, &c), ERR_RANGE);
	EQ(scram_derive(S("\x07"), str_of(salt, 1), 1, &c), ERR_SYNTAX);
}

int main(void)
{
	rfc7677();
	text();
	limits();
	return tap_done();
}
