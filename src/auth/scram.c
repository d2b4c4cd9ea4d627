/* SCRAM-SHA-256, RFC 5802 3:
 *
 *	SaltedPassword  = PBKDF2-HMAC-SHA-256(SASLprep(password), salt, i)
 *	ClientKey       = HMAC(SaltedPassword, "Client Key"), StoredKey = SHA-256(ClientKey)
 *	ServerKey       = HMAC(SaltedPassword, "Server Key")
 *	ClientSignature = HMAC(StoredKey, AuthMessage), ClientProof = ClientKey XOR ClientSignature
 *	ServerSignature = HMAC(ServerKey, AuthMessage)
 *
 * SaltedPassword and ClientKey log in by themselves; they live on the stack of one function and are
 * wiped before it returns. Two stored keys are compared in constant time.
 */
#include "auth/scram.h"

#include "auth/saslprep.h"
#include "text/base64.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

enum err hmac_sha256(str key, str text, uint8_t out[SCRAM_KEY_SIZE])
{
	unsigned n = SCRAM_KEY_SIZE;

	if (key.n > INT32_MAX || !HMAC(EVP_sha256(), key.n ? key.p : "", (int)key.n,
				       (const uint8_t *)text.p, text.n, out, &n))
		return ERR_TEMPORARY;
	return ERR_OK;
}

static str key_str(const uint8_t key[SCRAM_KEY_SIZE])
{
	return str_of(key, SCRAM_KEY_SIZE);
}

static enum err decode(str text, struct buf *scratch, uint8_t *out, size_t min, size_t max,
		       size_t *n)
{
	enum err err;

	buf_clear(scratch);
	if ((err = base64_decode(text, scratch)))
		return err;
	*n = buf_len(scratch);
	if (*n < min || *n > max)
		return ERR_SYNTAX;
	memcpy(out, buf_str(scratch).p, *n);
	return ERR_OK;
}

enum err scram_parse(str text, struct scram_credentials *out)
{
	struct buf scratch;
	uint64_t iterations;
	enum err err;
	size_t n;

	memset(out, 0, sizeof(*out));
	if (text.n > SCRAM_TEXT_MAX)
		return ERR_SYNTAX;
	if ((err = str_to_u64(str_cut(&text, ','), SCRAM_ITERATIONS_MAX, &iterations)))
		return err;
	if (iterations == 0)
		return ERR_RANGE;
	out->iterations = u32_of(iterations);
	buf_init(&scratch, SCRAM_TEXT_MAX);
	if (!(err = decode(str_cut(&text, ','), &scratch, out->salt, 1, SCRAM_SALT_MAX,
			   &out->salt_size)) &&
	    !(err = decode(str_cut(&text, ','), &scratch, out->stored_key, SCRAM_KEY_SIZE,
			   SCRAM_KEY_SIZE, &n)))
		err = decode(text, &scratch, out->server_key, SCRAM_KEY_SIZE, SCRAM_KEY_SIZE, &n);
	buf_free(&scratch);
	return err;
}

enum err scram_print(const struct scram_credentials *c, struct buf *out)
{
	buf_add_u64(out, c->iterations);
	buf_add_char(out, ',');
	base64_encode(str_of(c->salt, c->salt_size), 0, out);
	buf_add_char(out, ',');
	base64_encode(key_str(c->stored_key), 0, out);
	buf_add_char(out, ',');
	base64_encode(key_str(c->server_key), 0, out);
	return buf_failed(out) ? ERR_NO_MEMORY : ERR_OK;
}

/* From SaltedPassword. */
static enum err derive_keys(str salted, struct scram_credentials *out)
{
	uint8_t client_key[SCRAM_KEY_SIZE];
	enum err err = hmac_sha256(salted, S("Client Key"), client_key);

	if (!err &&
	    !EVP_Digest(client_key, sizeof(client_key), out->stored_key, NULL, EVP_sha256(), NULL))
		err = ERR_TEMPORARY;
	if (!err)
		err = hmac_sha256(salted, S("Server Key"), out->server_key);
	OPENSSL_cleanse(client_key, sizeof(client_key));
	return err;
}

enum err scram_derive(str password, str salt, uint32_t iterations, struct scram_credentials *out)
{
	char prepared[SASLPREP_INPUT_MAX];
	uint8_t salted[SCRAM_KEY_SIZE];
	enum err err;
	size_t n;

	memset(out, 0, sizeof(*out));
	if (salt.n == 0 || salt.n > SCRAM_SALT_MAX || iterations == 0 ||
	    iterations > SCRAM_ITERATIONS_MAX)
		return ERR_RANGE;
	out->iterations = iterations;
	out->salt_size = salt.n;
	memcpy(out->salt, salt.p, salt.n);
	/* RFC 5802 2.2: Normalize(str) is SASLprep */
	if ((err = saslprep(password, prepared, sizeof(prepared), &n)))
		goto out;
	if (!PKCS5_PBKDF2_HMAC(prepared, (int)n, out->salt, (int)salt.n, (int)iterations,
			       EVP_sha256(), SCRAM_KEY_SIZE, salted)) {
		err = ERR_TEMPORARY;
		goto out;
	}
	err = derive_keys(key_str(salted), out);
out:
	OPENSSL_cleanse(prepared, sizeof(prepared));
	OPENSSL_cleanse(salted, sizeof(salted));
	return err;
}

bool scram_proof_is_right(const struct scram_credentials *c, str auth_message,
			  const uint8_t proof[SCRAM_KEY_SIZE])
{
	uint8_t key[SCRAM_KEY_SIZE], hashed[SCRAM_KEY_SIZE];
	bool right = false;

	if (hmac_sha256(key_str(c->stored_key), auth_message, key))
		return false;
	for (size_t i = 0; i < SCRAM_KEY_SIZE; i++)
		key[i] ^= proof[i];
	if (EVP_Digest(key, sizeof(key), hashed, NULL, EVP_sha256(), NULL))
		right = CRYPTO_memcmp(hashed, c->stored_key, SCRAM_KEY_SIZE) == 0;
	OPENSSL_cleanse(key, sizeof(key));
	return right;
}

enum err scram_server_signature(const struct scram_credentials *c, str auth_message,
				uint8_t out[SCRAM_KEY_SIZE])
{
	return hmac_sha256(key_str(c->server_key), auth_message, out);
}
