/* Includes messages.def once, with what the includer defined, and cleans up. The includer defines one
 * MSG_FIELDS_x set (below) or the field macros themselves, and those of MESSAGE, RECORD, END it
 * needs. No include guard: it is a template. */
#ifdef MSG_FIELDS_NOTHING
#define U8(f)
#define U16(f)
#define U32(f)
#define U64(f)
#define I64(f)
#define FLAG(f)
#define HASH(f)
#define TICKET(f)
#define STR(f, max)
#define BYTES(f, max)
#define FD(f)
#undef MSG_FIELDS_NOTHING
#endif
#ifdef MSG_FIELDS_STRUCT
#define U8(f)	      uint8_t f;
#define U16(f)	      uint16_t f;
#define U32(f)	      uint32_t f;
#define U64(f)	      uint64_t f;
#define I64(f)	      int64_t f;
#define FLAG(f)	      bool f;
#define HASH(f)	      uint8_t f[32];
#define TICKET(f)     uint8_t f[16];
#define STR(f, max)   str f;
#define BYTES(f, max) str f;
#define FD(f)	      int f;
#undef MSG_FIELDS_STRUCT
#endif
#ifndef MESSAGE
#define MESSAGE(name, number, from, to, text)
#endif
#ifndef RECORD
#define RECORD(name)
#endif
#ifndef END
#define END
#endif

#include "base/messages.def"

#undef U8
#undef U16
#undef U32
#undef U64
#undef I64
#undef FLAG
#undef HASH
#undef TICKET
#undef STR
#undef BYTES
#undef FD
#undef MESSAGE
#undef RECORD
#undef END
