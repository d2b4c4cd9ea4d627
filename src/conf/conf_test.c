/* posthorn.conf: syntax as in main.cf, typed values, every problem reported with its line. */
#include "conf/conf.h"

#include "base/tap.h"

struct parsed {
	struct arena *arena;
	struct buf problems;
	struct conf *conf;
	enum err err;
};

static struct parsed parse(str text)
{
	struct parsed p = { .arena = arena_new(CONF_ARENA_SIZE) };

	buf_init(&p.problems, CONF_PROBLEMS_MAX);
	p.err = conf_parse(text, S("/etc/posthorn/posthorn.conf"), p.arena, &p.problems, &p.conf);
	return p;
}

static void done(struct parsed *p)
{
	buf_free(&p->problems);
	arena_free(p->arena);
}

static bool reports(const struct parsed *p, str problem)
{
	bool is_there = str_find(buf_str(&p->problems), problem) != STR_NONE;

	if (!is_there)
		tap_str("problems", buf_str(&p->problems));
	return is_there;
}

static void test_defaults(void)
{
	struct parsed p = parse(S(""));
	size_t n;

	tap_group("defaults");
	EQ(p.err, ERR_OK);
	STR_EQ(buf_str(&p.problems), S(""));
	STR_EQ(conf_str(p.conf, CONF_myhostname), S("localhost"));
	EQ(conf_size(p.conf, CONF_message_size_limit), 52428800);
	OK(conf_bool(p.conf, CONF_disable_plaintext_auth));
	EQ(conf_time_ns(p.conf, CONF_smtpd_timeout), 300000000000);
	STR_EQ(conf_str(p.conf, CONF_smtp_tls_security_level), S("may"));
	EQ(conf_choice(p.conf, CONF_smtp_tls_security_level), 1);
	(void)conf_nets(p.conf, CONF_mynetworks, &n);
	EQ(n, 0);
	(void)conf_listens(p.conf, &n);
	EQ(n, 8); /* smtp, submission, submissions, imaps on both families */
	OK(CONF_COUNT < 100);
	EQ(conf_check(p.conf, NULL), ERR_CONFIG); /* no myhostname */
	done(&p);
}

static void test_syntax(void)
{
	struct parsed p = parse(S("# a comment\n"
				  "myhostname = mail.example.test\n"
				  "\n"
				  "mynetworks = 127.0.0.0/8,\n"
				  "  # a comment between\n"
				  "\n"
				  "\t[::1]/128 192.0.2.7\n"
				  "relayhost=[${myhostname}]:25\r\n"
				  "tls_cert_file = $config_directory/cert.pem\n"
				  "postmaster = $$(x)\n"
				  "message_size_limit = 10m"));
	const struct conf_net *nets;
	struct addr a;
	size_t n;

	tap_group("syntax");
	EQ(p.err, ERR_OK);
	STR_EQ(buf_str(&p.problems), S(""));
	STR_EQ(conf_str(p.conf, CONF_relayhost), S("[mail.example.test]:25"));
	STR_EQ(conf_str(p.conf, CONF_mydomain), S("example.test"));
	STR_EQ(conf_str(p.conf, CONF_myorigin), S("example.test"));
	STR_EQ(conf_str(p.conf, CONF_tls_key_file), S("/etc/posthorn/cert.pem"));
	STR_EQ(conf_str(p.conf, CONF_postmaster), S("$(x)"));
	EQ(conf_size(p.conf, CONF_message_size_limit), 10 * 1024 * 1024);
	EQ(conf_line(p.conf, CONF_mynetworks), 4);
	EQ(conf_line(p.conf, CONF_message_size_limit), 11);
	EQ(conf_line(p.conf, CONF_mydomain), 0);
	nets = conf_nets(p.conf, CONF_mynetworks, &n);
	EQ(n, 3);
	EQ(nets[0].bits, 8);
	EQ(nets[1].bits, 128);
	EQ(nets[2].bits, 32);
	EQ(addr_parse_ip(S("127.1.2.3"), &a), ERR_OK);
	OK(conf_nets_contain(p.conf, CONF_mynetworks, &a));
	EQ(addr_parse_ip(S("192.0.2.8"), &a), ERR_OK);
	OK(!conf_nets_contain(p.conf, CONF_mynetworks, &a));
	EQ(conf_check(p.conf, NULL), ERR_OK);
	done(&p);
}

static void test_problems(void)
{
	struct parsed p = parse(S("  leading\n"
				  "myhostnam = x\n"
				  "no equals sign\n"
				  "relayhost = $no_such\n"
				  "mydomain = $myorigin\n"
				  "myorigin = $mydomain\n"
				  "smtpd_recipient_limit = 0\n"
				  "smtpd_recipient_limit = 5\n"
				  "disable_plaintext_auth = maybe\n"
				  "log_level = loud\n"
				  "mynetworks = 10.0.0.1/8 300.1.1.1\n"
				  "data_dir = relative\n"
				  "smtpd_timeout = 5x\n"
				  "policy = any: reject\n"
				  "listen = gopher 127.0.0.1:70\n"
				  "postmaster = $\n"
				  "zzzzzzzzzzzzz = 1\n"
				  "dns_servers = ns.example\n"
				  "transport_maps = {a=b}\n"
				  "message_size_limit = 99999999999999999999g\n"));

	tap_group("problems");
	EQ(p.err, ERR_CONFIG);
	OK(p.conf == NULL);
	OK(reports(&p, S("posthorn.conf:1: this line begins with white space")));
	OK(reports(&p, S(":2: unknown setting \"myhostnam\"; did you mean \"myhostname\"?")));
	OK(reports(&p, S(":3: a line must be")));
	OK(reports(&p, S(":4: $no_such is no setting")));
	OK(reports(&p, S("stands for itself")));
	OK(reports(&p, S(":7: smtpd_recipient_limit must be between 1 and 10000, not 0")));
	OK(reports(&p, S(":8: smtpd_recipient_limit is set already in line 7")));
	OK(reports(&p, S(":9: disable_plaintext_auth must be yes or no, not \"maybe\"")));
	OK(reports(&p, S(":10: log_level must be one of error warn info debug")));
	OK(reports(&p, S(":11: mynetworks: \"10.0.0.1/8\" has bits set behind its first 8")));
	OK(reports(&p, S(":11: mynetworks: \"300.1.1.1\" is no network")));
	OK(reports(&p, S(":12: data_dir must be an absolute path")));
	OK(reports(&p, S(":13: smtpd_timeout must be a time")));
	OK(reports(&p, S(":14: policy lines")));
	OK(reports(&p, S(":15: listen: \"gopher\"")));
	OK(reports(&p, S(":16: a $ must be followed")));
	OK(reports(&p, S(":17: unknown setting \"zzzzzzzzzzzzz\"\n")));
	OK(reports(&p, S(":18: dns_servers: \"ns.example\"")));
	OK(reports(&p, S(":19: transport_maps must be a table")));
	OK(reports(&p, S(":20: message_size_limit must be a number of bytes")));
	done(&p);
	p = parse(str_of("myhostname = a\0b", 16));
	EQ(p.err, ERR_CONFIG);
	done(&p);
}

static void test_listen(void)
{
	struct parsed p = parse(S("listen = smtp 127.0.0.1:$smtp_client_port\n"
				  "listen = lmtp unix:/run/lmtp mode=0666\n"
				  "listen = imaps *:10993\n"
				  "listen = imap [::1]:10143\n"
				  "smtp_client_port = 10025\n"));
	const struct conf_listen *l;
	size_t n;

	tap_group("listen");
	EQ(p.err, ERR_OK);
	STR_EQ(buf_str(&p.problems), S(""));
	l = conf_listens(p.conf, &n);
	EQ(n, 5);
	STR_EQ(l[0].service, S("smtp"));
	EQ(l[0].address.port, 10025); /* settings that come later count */
	EQ(l[1].address.family, ADDR_UNIX);
	EQ(l[1].mode, 0666);
	EQ(l[2].address.family, ADDR_IP4);
	EQ(l[3].address.family, ADDR_IP6);
	EQ(l[4].address.port, 10143);
	OK(conf_service_is_tls(S("imaps")) && !conf_service_is_tls(S("imap")));
	done(&p);
	p = parse(S("listen = smtp 127.0.0.1\nlisten = imap 127.0.0.1:1 mode=0600\nlisten = imap "
		    "*:0\nlisten = imap\n"));
	EQ(p.err, ERR_CONFIG);
	OK(reports(&p, S(":1: listen: \"127.0.0.1\" must be")));
	OK(reports(&p, S(":2: listen: mode= is for unix:")));
	OK(reports(&p, S(":3: listen: \"*:0\" must be")));
	OK(reports(&p, S(":4: listen: \"\" must be")));
	done(&p);
	p = parse(S("myhostname = a.b\nlisten = imaps 127.0.0.1:1\nlisten = imap 127.0.0.1:1\n"));
	EQ(p.err, ERR_OK);
	EQ(conf_check(p.conf, &p.problems), ERR_CONFIG);
	OK(reports(&p, S(":2: tls_cert_file must be set: imaps needs a certificate")));
	OK(reports(&p, S(":3: listen: 127.0.0.1:1 is there twice")));
	done(&p);
}

static void test_tables(void)
{
	struct parsed p = parse(S("transport_maps = inline:{ {example.com = smtp:[192.0.2.1]:25},\n"
				  "   { .example.net = smtp:relay.example } }\n"
				  "dns_servers = 127.0.0.1:5353, ::1\n"));
	const struct addr *addrs;
	str value;
	size_t n;

	tap_group("tables");
	EQ(p.err, ERR_OK);
	STR_EQ(buf_str(&p.problems), S(""));
	EQ(conf_table_find(p.conf, CONF_transport_maps, S("Example.COM"), &value), ERR_OK);
	STR_EQ(value, S("smtp:[192.0.2.1]:25"));
	EQ(conf_table_find(p.conf, CONF_transport_maps, S(".example.net"), &value), ERR_OK);
	STR_EQ(value, S("smtp:relay.example"));
	EQ(conf_table_find(p.conf, CONF_transport_maps, S("example.net"), &value), ERR_NOT_FOUND);
	addrs = conf_addrs(p.conf, CONF_dns_servers, &n);
	EQ(n, 2);
	EQ(addrs[0].port, 5353);
	EQ(addrs[1].port, 0);
	done(&p);
}

/* A setting of each size around the limit of one value. */
static void test_limits(void)
{
	struct buf text;

	tap_group("limits");
	for (size_t extra = 0; extra < 3; extra++) {
		struct parsed p;

		buf_init(&text, CONF_VALUE_MAX * 2);
		buf_add(&text, S("relayhost="));
		while (buf_len(&text) < CONF_VALUE_MAX - 1 + extra)
			buf_add_char(&text, 'x');
		p = parse(buf_str(&text));
		EQ(p.err, extra < 2 ? ERR_OK : ERR_CONFIG);
		done(&p);
		buf_free(&text);
	}
	buf_init(&text, CONF_VALUE_MAX * 2);
	for (unsigned i = 0; i < CONF_LISTEN_MAX; i++)
		buf_printf(&text, "listen = smtp 127.0.0.1:%u\n", 1000 + i);
	struct parsed p = parse(buf_str(&text));
	EQ(p.err, ERR_OK);
	done(&p);
	buf_add(&text, S("listen = smtp 127.0.0.1:99\n"));
	p = parse(buf_str(&text));
	EQ(p.err, ERR_CONFIG);
	done(&p);
	buf_free(&text);
}

static void test_reload(void)
{
	struct parsed a = parse(S("log_level = info\ndata_dir = /a\n")),
		      b = parse(S("log_level = debug\ndata_dir = /b\n"));
	struct buf names;

	tap_group("reload");
	buf_init(&names, CONF_PROBLEMS_MAX);
	OK(conf_needs_restart(a.conf, b.conf, &names));
	STR_EQ(buf_str(&names), S("data_dir\n"));
	OK(!conf_needs_restart(a.conf, a.conf, NULL));
	buf_free(&names);
	done(&a);
	done(&b);
}

int main(void)
{
	test_defaults();
	test_syntax();
	test_problems();
	test_listen();
	test_tables();
	test_limits();
	test_reload();
	return tap_done();
}
