/* CRC-32C (Castagnoli; RFC 3720 appendix B.4), with the processor's instruction where it has one.
 */
#ifndef STORE_CRC32C_H
#define STORE_CRC32C_H

#include "base/str.h"

/* Goes on from `crc`, which is 0 for a first piece: crc32c(crc32c(0, a), b) is that of a followed
 * by b. */
uint32_t crc32c(uint32_t crc, str s);
/* The same by table: for processors without the instruction, and for the test. */
uint32_t crc32c_by_table(uint32_t crc, str s);

#endif
