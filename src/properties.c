/*
 * properties.c
 *		The table of librdkafka properties.
 *
 * Plain C: a test program compiles this file without PostgreSQL.
 */
#include <stddef.h>
#include <string.h>

#include "properties.h"

#define N KCF_PROPERTY_NEVER
#define F KCF_PROPERTY_FILE
#define U KCF_PROPERTY_USER
#define O KCF_PROPERTY_OWNER

#define WHY_LIBRARY "It loads a library into the server process."
#define WHY_COMMAND "It names a shell command that the server would run."
#define WHY_FILES "It makes the server write files."
#define WHY_SIGNAL "It replaces a signal handler of the server process."
#define WHY_POINTER "It is a pointer, which only a program can set."
#define WHY_MOCK "It serves librdkafka's own tests and changes what the client talks to."
#define WHY_OURS "The extension sets it itself."
#define WHY_REGEX "It compiles regular expressions inside the server process."
#define WHY_GROUP "Partitions are assigned by the extension, which never joins a consumer group."
#define WHY_FENCE "The name of another program's transactions would fence that program."
#define WHY_PROMISE "What the extension promises about completeness and order depends on it."
#define WHY_OLD "It is obsolete, or of no use on this platform."

#define NOT_KERBEROS "It belongs to Kerberos (GSSAPI), which is not supported."
#define NOT_OAUTH "It belongs to OAUTHBEARER, which is not supported."

#define INT(lo, hi) .type = KCF_VALUE_INT, .min = (lo), .max = (hi)
#define ENUM(list) .type = KCF_VALUE_ENUM, .values = (list)

/* clang-format off */
const KcfPropertyRule kcf_properties[] = {
	{ "acks", N, WHY_PROMISE, .alias_of = "request.required.acks" },
	{ "allow.auto.create.topics", N, WHY_PROMISE },
	{ "api.version.fallback.ms", N, WHY_OLD },
	{ "api.version.request", N, WHY_OLD },
	{ "api.version.request.timeout.ms", N, WHY_OLD },
	{ "auto.commit.enable", N, WHY_GROUP },
	{ "auto.commit.interval.ms", N, WHY_GROUP },
	{ "auto.offset.reset", N, WHY_PROMISE },
	{ "background_event_cb", N, WHY_POINTER },
	{ "batch.num.messages", O, NULL, .scope = 'P', INT(1, 1000000) },
	{ "batch.size", O, NULL, .scope = 'P', INT(1, 100000000) },
	{ "bootstrap.servers", O, NULL, .scope = '*', .type = KCF_VALUE_BROKERS },
	{ "broker.address.family", O, NULL, .scope = '*', ENUM("any,v4,v6") },
	{ "broker.address.ttl", O, NULL, .scope = '*', INT(0, 86400000) },
	{ "broker.version.fallback", N, WHY_OLD },
	{ "builtin.features", N, WHY_OURS },
	{ "check.crcs", N, WHY_PROMISE },
	{ "client.dns.lookup", O, NULL, .scope = '*', .newer = true, ENUM("use_all_dns_ips,resolve_canonical_bootstrap_servers_only") },
	{ "client.id", O, NULL, .scope = '*', .type = KCF_VALUE_IDENTITY, .value = "kafka_cache_fdw" },
	{ "client.rack", O, NULL, .scope = '*', .type = KCF_VALUE_NAME },
	{ "client.software.name", N, WHY_OURS },
	{ "client.software.version", N, WHY_OURS },
	{ "closesocket_cb", N, WHY_POINTER },
	{ "compression.codec", O, NULL, .scope = 'P', ENUM("none,gzip,snappy,lz4,zstd") },
	{ "compression.level", O, NULL, .scope = 'P', INT(-1, 12) },
	{ "compression.type", O, NULL, .alias_of = "compression.codec", .scope = 'P', ENUM("none,gzip,snappy,lz4,zstd") },
	{ "connect_cb", N, WHY_POINTER },
	{ "connections.max.idle.ms", O, NULL, .scope = '*', INT(0, 2147483647) },
	{ "consume.callback.max.messages", N, WHY_GROUP },
	{ "consume_cb", N, WHY_POINTER },
	{ "coordinator.query.interval.ms", N, WHY_GROUP },
	{ "debug", F, NULL, .scope = '*', .right = KCF_RIGHT_SUPERUSER, .type = KCF_VALUE_TEXT },
	{ "default_topic_conf", N, WHY_POINTER },
	{ "delivery.report.only.error", N, WHY_PROMISE },
	{ "delivery.timeout.ms", O, NULL, .alias_of = "message.timeout.ms", .scope = 'P', INT(1000, 3600000) },
	{ "dr_cb", N, WHY_POINTER },
	{ "dr_msg_cb", N, WHY_POINTER },
	{ "enable.auto.commit", N, WHY_GROUP },
	{ "enable.auto.offset.store", N, WHY_GROUP },
	{ "enable.gapless.guarantee", N, WHY_PROMISE },
	{ "enable.idempotence", N, WHY_PROMISE },
	{ "enable.metrics.push", N, WHY_PROMISE, .newer = true },
	{ "enable.partition.eof", N, WHY_PROMISE },
	{ "enable.random.seed", N, WHY_OURS },
	{ "enable.sasl.oauthbearer.unsecure.jwt", F, NOT_OAUTH },
	{ "enable.sparse.connections", N, WHY_OLD },
	{ "enable.ssl.certificate.verification", F, NULL, .scope = '*', .right = KCF_RIGHT_SUPERUSER, .type = KCF_VALUE_BOOL },
	{ "enable_sasl_queue", N, WHY_MOCK },
	{ "enabled_events", N, WHY_OURS },
	{ "error_cb", N, WHY_POINTER },
	{ "fetch.error.backoff.ms", O, NULL, .scope = 'C', INT(1, 300000) },
	{ "fetch.max.bytes", O, NULL, .scope = 'C', INT(1024, 104857600) },
	/*
	 * Half of the library's own: a response's records are still in the processor's caches when they are decoded,
	 * and a response that decompresses to many times its size does not overrun the queue.
	 */
	{ "fetch.message.max.bytes", O, NULL, .scope = 'C', INT(1024, 104857600), .value = "524288" },
	{ "fetch.min.bytes", O, NULL, .scope = 'C', INT(1, 100000000) },
	{ "fetch.queue.backoff.ms", O, NULL, .scope = 'C', .newer = true, INT(0, 300000) },
	{ "fetch.wait.max.ms", O, NULL, .scope = 'C', INT(1, 60000) },
	{ "group.id", N, WHY_GROUP },
	{ "group.instance.id", N, WHY_GROUP },
	{ "group.protocol", N, WHY_GROUP, .newer = true },
	{ "group.protocol.type", N, WHY_GROUP },
	{ "group.remote.assignor", N, WHY_GROUP, .newer = true },
	{ "heartbeat.interval.ms", N, WHY_GROUP },
	{ "https.ca.location", F, NOT_OAUTH, .newer = true },
	{ "https.ca.pem", O, NOT_OAUTH, .newer = true },
	{ "interceptors", N, WHY_POINTER },
	{ "internal.termination.signal", N, WHY_SIGNAL },
	{ "isolation.level", N, WHY_PROMISE },
	{ "linger.ms", O, NULL, .alias_of = "queue.buffering.max.ms", .scope = 'P', INT(0, 60000) },
	{ "log.connection.close", F, NULL, .scope = '*', .right = KCF_RIGHT_SUPERUSER, .type = KCF_VALUE_BOOL, .value = "false" },
	{ "log.queue", N, WHY_OURS },
	{ "log.thread.name", N, WHY_OURS },
	{ "log_cb", N, WHY_POINTER },
	{ "log_level", F, NULL, .scope = '*', .right = KCF_RIGHT_SUPERUSER, INT(0, 7) },
	{ "max.in.flight", N, WHY_PROMISE, .alias_of = "max.in.flight.requests.per.connection" },
	{ "max.in.flight.requests.per.connection", N, WHY_PROMISE },
	{ "max.partition.fetch.bytes", O, NULL, .alias_of = "fetch.message.max.bytes", .scope = 'C', INT(1024, 104857600) },
	{ "max.poll.interval.ms", N, WHY_GROUP },
	{ "max.poll.records", N, WHY_GROUP, .newer = true },
	{ "message.copy.max.bytes", O, NULL, .scope = '*', INT(0, 1000000000) },
	{ "message.max.bytes", O, NULL, .scope = '*', INT(1000, 1000000000) },
	{ "message.send.max.retries", N, WHY_PROMISE },
	{ "message.timeout.ms", O, NULL, .scope = 'P', INT(1000, 3600000) },
	{ "metadata.broker.list", O, NULL, .alias_of = "bootstrap.servers", .scope = '*', .type = KCF_VALUE_BROKERS },
	{ "metadata.max.age.ms", O, NULL, .scope = '*', INT(1000, 86400000) },
	{ "metadata.recovery.rebootstrap.trigger.ms", O, NULL, .scope = '*', .newer = true, INT(0, 2147483647) },
	{ "metadata.recovery.strategy", O, NULL, .scope = '*', .newer = true, ENUM("none,rebootstrap") },
	{ "metadata.request.timeout.ms", N, WHY_OLD },
	{ "msg_order_cmp", N, WHY_POINTER },
	{ "oauthbearer_token_refresh_cb", N, WHY_POINTER },
	{ "offset.store.method", N, WHY_FILES },
	{ "offset.store.path", N, WHY_FILES },
	{ "offset.store.sync.interval.ms", N, WHY_FILES },
	{ "offset_commit_cb", N, WHY_POINTER },
	{ "opaque", N, WHY_POINTER },
	{ "open_cb", N, WHY_POINTER },
	{ "partition.assignment.strategy", N, WHY_GROUP },
	{ "partitioner", N, WHY_PROMISE },
	{ "partitioner_cb", N, WHY_POINTER },
	{ "plugin.library.paths", N, WHY_LIBRARY },
	{ "produce.offset.report", N, WHY_PROMISE },
	{ "queue.buffering.backpressure.threshold", O, NULL, .scope = 'P', INT(1, 1000000) },
	/* what a producer may hold; beyond it sessions wait. The library's own is a gigabyte */
	{ "queue.buffering.max.kbytes", O, NULL, .scope = 'P', INT(1, 1048576), .value = "65536" },
	{ "queue.buffering.max.messages", O, NULL, .scope = 'P', INT(1, 10000000) },
	/* a session waits for its record; while a request is under way, batches grow by themselves */
	{ "queue.buffering.max.ms", O, NULL, .scope = 'P', INT(0, 60000) },
	/*
	 * The library's queue is emptied into our spool all the time; it fills up only while the spool is full. The
	 * count is no limit of ours.
	 */
	{ "queued.max.messages.kbytes", O, NULL, .scope = 'C', INT(1, 131072), .value = "65536" },
	{ "queued.min.messages", O, NULL, .scope = 'C', INT(1, 10000000), .value = "10000000" },
	{ "queuing.strategy", N, WHY_PROMISE },
	{ "rebalance_cb", N, WHY_POINTER },
	{ "receive.message.max.bytes", F, NULL, .scope = '*', .right = KCF_RIGHT_SUPERUSER, INT(1000, 2147483647) },
	{ "reconnect.backoff.jitter.ms", N, WHY_OLD },
	{ "reconnect.backoff.max.ms", O, NULL, .scope = '*', INT(50, 30000), .value = "10000" },
	{ "reconnect.backoff.ms", O, NULL, .scope = '*', INT(50, 30000), .value = "100" },
	{ "request.required.acks", N, WHY_PROMISE },
	{ "request.timeout.ms", O, NULL, .scope = 'P', INT(1000, 300000) },
	{ "resolve_cb", N, WHY_POINTER },
	{ "retries", N, WHY_PROMISE, .alias_of = "message.send.max.retries" },
	{ "retry.backoff.max.ms", O, NULL, .scope = '*', .newer = true, INT(50, 300000) },
	{ "retry.backoff.ms", O, NULL, .scope = 'P', INT(1, 300000) },
	{ "sasl.kerberos.keytab", F, NOT_KERBEROS },
	{ "sasl.kerberos.kinit.cmd", N, WHY_COMMAND },
	{ "sasl.kerberos.min.time.before.relogin", F, NOT_KERBEROS },
	{ "sasl.kerberos.principal", F, NOT_KERBEROS },
	{ "sasl.kerberos.service.name", F, NOT_KERBEROS },
	{ "sasl.mechanism", O, NULL, .alias_of = "sasl.mechanisms", .scope = '*', ENUM("PLAIN,SCRAM-SHA-256,SCRAM-SHA-512") },
	{ "sasl.mechanisms", O, NULL, .scope = '*', ENUM("PLAIN,SCRAM-SHA-256,SCRAM-SHA-512") },
	{ "sasl.oauthbearer.assertion.algorithm", F, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.assertion.claim.aud", F, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.assertion.claim.exp.seconds", F, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.assertion.claim.iss", F, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.assertion.claim.jti.include", F, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.assertion.claim.nbf.seconds", F, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.assertion.claim.sub", F, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.assertion.file", F, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.assertion.jwt.template.file", F, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.assertion.private.key.file", F, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.assertion.private.key.passphrase", U, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.assertion.private.key.pem", U, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.client.credentials.client.id", U, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.client.credentials.client.secret", U, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.client.id", U, NOT_OAUTH },
	{ "sasl.oauthbearer.client.secret", U, NOT_OAUTH },
	{ "sasl.oauthbearer.config", U, NOT_OAUTH },
	{ "sasl.oauthbearer.extensions", U, NOT_OAUTH },
	{ "sasl.oauthbearer.grant.type", F, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.metadata.authentication.type", F, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.method", F, NOT_OAUTH },
	{ "sasl.oauthbearer.scope", U, NOT_OAUTH },
	{ "sasl.oauthbearer.sub.claim.name", F, NOT_OAUTH, .newer = true },
	{ "sasl.oauthbearer.token.endpoint.url", F, NOT_OAUTH },
	{ "sasl.password", U, NULL, .scope = '*', .type = KCF_VALUE_TEXT },
	{ "sasl.username", U, NULL, .scope = '*', .type = KCF_VALUE_TEXT },
	{ "security.protocol", O, NULL, .scope = '*', ENUM("plaintext,ssl,sasl_plaintext,sasl_ssl") },
	{ "session.timeout.ms", N, WHY_GROUP },
	{ "share.acknowledgement.mode", N, WHY_GROUP, .newer = true },
	{ "socket.blocking.max.ms", N, WHY_OLD },
	{ "socket.connection.setup.timeout.ms", O, NULL, .scope = '*', INT(1000, 120000), .value = "10000" },
	{ "socket.keepalive.enable", O, NULL, .scope = '*', .type = KCF_VALUE_BOOL, .value = "true" },
	{ "socket.max.fails", O, NULL, .scope = '*', INT(0, 1000000) },
	{ "socket.nagle.disable", O, NULL, .scope = '*', .type = KCF_VALUE_BOOL, .value = "true" },
	{ "socket.receive.buffer.bytes", O, NULL, .scope = '*', INT(0, 100000000) },
	{ "socket.send.buffer.bytes", O, NULL, .scope = '*', INT(0, 100000000) },
	/* the library waits a minute before it takes a frozen broker for dead */
	{ "socket.timeout.ms", O, NULL, .scope = '*', INT(1000, 60000), .value = "10000" },
	{ "socket_cb", N, WHY_POINTER },
	{ "ssl.ca.certificate.stores", N, WHY_OLD },
	{ "ssl.ca.location", F, NULL, .scope = '*', .right = KCF_RIGHT_READ_FILES, .type = KCF_VALUE_PATH },
	{ "ssl.ca.pem", O, NULL, .scope = '*', .type = KCF_VALUE_PEM },
	{ "ssl.certificate.location", F, NULL, .scope = '*', .right = KCF_RIGHT_READ_FILES, .type = KCF_VALUE_PATH },
	{ "ssl.certificate.pem", U, NULL, .scope = '*', .type = KCF_VALUE_PEM },
	{ "ssl.certificate.verify_cb", N, WHY_POINTER },
	{ "ssl.cipher.suites", F, NULL, .scope = '*', .right = KCF_RIGHT_SUPERUSER, .type = KCF_VALUE_TEXT },
	{ "ssl.crl.location", F, NULL, .scope = '*', .right = KCF_RIGHT_READ_FILES, .type = KCF_VALUE_PATH },
	{ "ssl.curves.list", F, NULL, .scope = '*', .right = KCF_RIGHT_SUPERUSER, .type = KCF_VALUE_TEXT },
	{ "ssl.endpoint.identification.algorithm", F, NULL, .scope = '*', .right = KCF_RIGHT_SUPERUSER, ENUM("none,https") },
	{ "ssl.engine.id", N, WHY_LIBRARY },
	{ "ssl.engine.location", N, WHY_LIBRARY },
	{ "ssl.key.location", F, NULL, .scope = '*', .right = KCF_RIGHT_READ_FILES, .type = KCF_VALUE_PATH },
	{ "ssl.key.password", U, NULL, .scope = '*', .type = KCF_VALUE_TEXT },
	{ "ssl.key.pem", U, NULL, .scope = '*', .type = KCF_VALUE_PEM },
	{ "ssl.keystore.location", F, NULL, .scope = '*', .right = KCF_RIGHT_READ_FILES, .type = KCF_VALUE_PATH },
	{ "ssl.keystore.password", U, NULL, .scope = '*', .type = KCF_VALUE_TEXT },
	{ "ssl.providers", N, WHY_LIBRARY },
	{ "ssl.sigalgs.list", F, NULL, .scope = '*', .right = KCF_RIGHT_SUPERUSER, .type = KCF_VALUE_TEXT },
	{ "ssl_ca", N, WHY_POINTER },
	{ "ssl_certificate", N, WHY_POINTER },
	{ "ssl_engine_callback_data", N, WHY_POINTER },
	{ "ssl_key", N, WHY_POINTER },
	{ "statistics.interval.ms", O, WHY_OURS },
	{ "stats_cb", N, WHY_POINTER },
	{ "sticky.partitioning.linger.ms", O, NULL, .scope = 'P', INT(0, 60000) },
	{ "test.mock.broker.rtt", N, WHY_MOCK },
	{ "test.mock.num.brokers", N, WHY_MOCK },
	{ "throttle_cb", N, WHY_POINTER },
	{ "topic.blacklist", N, WHY_REGEX },
	{ "topic.metadata.propagation.max.ms", O, NULL, .scope = '*', INT(0, 3600000) },
	{ "topic.metadata.refresh.fast.cnt", N, WHY_OLD },
	{ "topic.metadata.refresh.fast.interval.ms", O, NULL, .scope = '*', INT(10, 60000) },
	/* partitions that are added and topics that come and go are noticed within that */
	{ "topic.metadata.refresh.interval.ms", O, NULL, .scope = '*', INT(1000, 3600000), .value = "10000" },
	{ "topic.metadata.refresh.sparse", N, WHY_OLD },
	{ "transaction.timeout.ms", O, NULL, .scope = 'P', INT(1000, 15000) },
	{ "transactional.id", N, WHY_FENCE },
	{ "ut_handle_ProduceResponse", N, WHY_MOCK },
	{ NULL }
};
/* clang-format on */

const KcfPropertyRule *
kcf_property_find(const char *name)
{
	size_t lo = 0;
	size_t hi = sizeof(kcf_properties) / sizeof(kcf_properties[0]) - 1;

	while (lo < hi)
	{
		size_t mid = lo + (hi - lo) / 2;
		int cmp = strcmp(name, kcf_properties[mid].name);

		if (cmp == 0)
			return &kcf_properties[mid];
		if (cmp < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}
