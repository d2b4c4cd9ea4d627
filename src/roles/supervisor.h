/* The supervisor: the one process that may be root.
 *
 * Binds ports, opens files for others, starts the roles, restarts those that end (with back-off),
 * reloads, stops. It reads no byte of the network or of mail.
 */
#ifndef ROLES_SUPERVISOR_H
#define ROLES_SUPERVISOR_H

#include "conf/conf.h"

struct supervisor_options {
	str config_path;
	struct conf *conf; /* parsed and checked, from config_text */
	str config_text;
	int ready_fd; /* a byte is written here when all roles work, then it is closed; -1: none */
};

/* The life of the server; the exit status. Complaints of the start go to standard error, a sentence
 * each. */
int supervisor_main(const struct supervisor_options *o);
/* fsync of a folder by name: what was made in it is there after a power cut. */
MUST_USE enum err supervisor_folder_sync(str path);

#endif
