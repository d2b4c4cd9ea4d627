/* `posthorn status [--json]` and `posthorn roles`: what the supervisor and the roles themselves
 * say. Each role gives its figures as JSON members (role_ops.status); they are passed on as they
 * are, and shown a line each without --json. */
#include "roles/admin_priv.h"

#include <stdio.h>

static enum err ask_supervisor(struct admin_command *c, str *roles)
{
	struct msg_sup_status_reply m;
	struct role *r = c->admin->role;
	enum err err = CALL(role_peer(r, ROLE_SUPERVISOR, 0), sup_status, sup_status_reply, &m,
			    c->arena, loop_now(r->loop) + SECONDS(5));

	*roles = m.roles;
	if (err) {
		buf_printf(&c->err, "the supervisor did not answer: %s\n", err_text(err));
		c->exit = 1;
	}
	return err;
}

/* The role's own members; empty when it has none or does not answer in time. */
static str ask_role(struct admin_command *c, enum role_kind kind, unsigned index, str question)
{
	struct role *r = c->admin->role;
	struct chan *peer = role_peer(r, kind, index);
	struct msg_command_output m;

	if (!peer || !chan_is_up(peer) ||
	    CALL(peer, command, command_output, &m, c->arena, loop_now(r->loop) + SECONDS(2),
		 .args = question))
		return STR_EMPTY;
	return m.out;
}

/* A member on a line, those of an object further in. */
static void put_human(struct buf *out, str members)
{
	int depth = 1;

	for (size_t i = 0; i < members.n; i++) {
		char ch = members.p[i], next = i + 1 < members.n ? members.p[i + 1] : 0;

		depth += ch == '{' ? 1 : ch == '}' ? -1 : 0;
		if (ch == '{' || (ch == ',' && next == '"'))
			buf_printf(out, "\n%*s", 4 * depth, "");
		else if (ch == ':')
			buf_add(out, next == '{' ? S(":") : S(" "));
		else if (ch != '"' && ch != '}')
			buf_add_char(out, ch);
	}
}

static void put_own(struct admin_command *c, struct buf *out)
{
	struct trace_counts t = trace_log_counts(c->admin->trace);

	buf_printf(out, "\"trace_events\":%llu,\"trace_bytes\":%llu,\"trace_files\":%llu",
		   (unsigned long long)t.events, (unsigned long long)t.bytes,
		   (unsigned long long)t.files);
}

static void put_role(struct admin_command *c, const struct rec_sup_role *s, bool json,
		     bool is_first)
{
	struct buf own;
	str members;

	buf_init(&own, 1024);
	if ((enum role_kind)s->role == ROLE_ADMIN)
		put_own(c, &own);
	members = (enum role_kind)s->role == ROLE_ADMIN
			  ? buf_str(&own)
			  : ask_role(c, (enum role_kind)s->role, s->index, S("role-status\0"));
	if (json) {
		buf_printf(&c->out,
			   "%s{\"role\":\"%s\",\"index\":%u,\"pid\":%u,\"uid\":%u,\"restarts\":%u,"
			   "\"since\":%lld"
			   ",\"sandbox\":\"%.*s\"%s%.*s}",
			   is_first ? "" : ",", role_name((enum role_kind)s->role), s->index,
			   s->pid, s->uid, s->restarts, (long long)(s->since_us / 1000000),
			   STR_ARGS(s->sandbox), members.n ? "," : "", STR_ARGS(members));
	} else {
		buf_printf(&c->out, "%s.%u: pid %u, restarts %u",
			   role_name((enum role_kind)s->role), s->index, s->pid, s->restarts);
		if (members.n) {
			buf_add(&c->out, S("\n    "));
			put_human(&c->out, members);
		}
		buf_add_char(&c->out, '\n');
	}
	buf_free(&own);
}

void admin_status(struct admin_command *c)
{
	bool json = c->n > 1 && str_eq(c->args[1], S("--json")), is_first = true;
	struct rec_sup_role s;
	str roles;

	if (ask_supervisor(c, &roles))
		return;
	if (json)
		buf_printf(&c->out, "{\"version\":\"%s\",\"uptime\":%lld,\"roles\":[",
			   POSTHORN_VERSION,
			   (long long)((os_wall_us() - c->admin->started_us) / 1000000));
	while (rec_sup_role_get(&roles, &s) == ERR_OK) {
		put_role(c, &s, json, is_first);
		is_first = false;
	}
	if (json)
		buf_add(&c->out, S("]}\n"));
}

void admin_roles(struct admin_command *c)
{
	struct rec_sup_role s;
	str roles;

	if (ask_supervisor(c, &roles))
		return;
	while (rec_sup_role_get(&roles, &s) == ERR_OK) {
		bool is_admin = (enum role_kind)s.role == ROLE_ADMIN;
		str fds = is_admin ? STR_EMPTY
				   : ask_role(c, (enum role_kind)s.role, s.index,
					      S("role-descriptors\0"));

		buf_printf(&c->out, "%-11s %u  pid %-7u uid %-6u %.*s  %.*s",
			   role_name((enum role_kind)s.role), s.index, s.pid, s.uid,
			   STR_ARGS(s.sandbox), STR_ARGS(fds));
		if (is_admin)
			os_describe_fds(&c->out);
		buf_add_char(&c->out, '\n');
	}
}
