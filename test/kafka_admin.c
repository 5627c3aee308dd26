/*
 * kafka_admin.c
 *		What tests ask of a Kafka cluster, without the second and a half that a JVM takes to start.
 *
 *		kafka_admin ADDRESS COMMAND WORD...
 *
 * Each command returns when its effect can be seen by clients.
 *		ping BROKERS						wait until this many brokers answer
 *		topic NAME PARTITIONS [NAME=VALUE]...	create a topic; replication=N, else its configuration
 *		delete NAME							delete it, and wait until it is gone
 *		partitions NAME COUNT				grow it
 *		delete-records TOPIC PARTITION OFFSET	everything below the offset (-1: everything)
 *		watermarks TOPIC					lines of: partition, low, high
 *		group ID							a group's positions; lines of: topic, partition, offset
 *		delete-group ID						delete it, with its positions
 *		acl add|remove allow|deny PRINCIPAL OPERATION topic|group|cluster NAME
 *		wait-compacted TOPIC				until no key occurs twice in any partition
 *		wait-gone TOPIC KEY					until no record, tombstones included, has this key
 *			The log's newest segment is never compacted. These two therefore append tombstones of
 *the key "roll" while they wait, so that older segments become compactable; they do not count it.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <time.h>

#include <librdkafka/rdkafka.h>

#define TIMEOUT_MS 60000
#define ROLL_KEY "roll"

static rd_kafka_t *client;
static const char *address;
static char errstr[512];

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void
fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Let librdkafka work, and the broker get on, between two looks. */
static void
pause_ms(int ms)
{
	int64_t end = now_ms() + ms;

	while (now_ms() < end)
		rd_kafka_poll(client, (int) (end - now_ms()));
}

static rd_kafka_t *
new_client(rd_kafka_type_t type)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;

	rd_kafka_conf_set(conf, "bootstrap.servers", address, NULL, 0);
	rd_kafka_conf_set(conf, "log_level", "2", NULL, 0);
	rd_kafka_conf_set(conf, "reconnect.backoff.ms", "20", NULL, 0);
	rd_kafka_conf_set(conf, "reconnect.backoff.max.ms", "100", NULL, 0);
	rd_kafka_conf_set(conf, "isolation.level", "read_uncommitted", NULL, 0);
	rd_kafka_conf_set(conf, "topic.metadata.propagation.max.ms", "0", NULL, 0);
	if (type == RD_KAFKA_CONSUMER)
	{
		rd_kafka_conf_set(conf, "group.id", "kafka_admin", NULL, 0);
		rd_kafka_conf_set(conf, "enable.auto.commit", "false", NULL, 0);
		rd_kafka_conf_set(conf, "enable.partition.eof", "true", NULL, 0);
		rd_kafka_conf_set(conf, "auto.offset.reset", "earliest", NULL, 0);
		rd_kafka_conf_set(conf, "fetch.wait.max.ms", "20", NULL, 0);
	}
	rk = rd_kafka_new(type, conf, errstr, sizeof(errstr));
	if (rk == NULL)
		fail("%s", errstr);
	if (type == RD_KAFKA_CONSUMER)
		rd_kafka_poll_set_consumer(rk);
	return rk;
}

/* How many partitions the topic has with a leader; -1: there is no such topic, or nobody answers.
 */
static int
live_partitions(const char *name)
{
	const struct rd_kafka_metadata *md;
	rd_kafka_topic_t *topic = rd_kafka_topic_new(client, name, NULL);
	int count = -1;

	if (rd_kafka_metadata(client, 0, topic, &md, 5000) == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		if (md->topic_cnt == 1 && md->topics[0].err == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			count = 0;
			for (int i = 0; i < md->topics[0].partition_cnt; i++)
				count += md->topics[0].partitions[i].leader >= 0;
		}
		rd_kafka_metadata_destroy(md);
	}
	rd_kafka_topic_destroy(topic);
	return count;
}

static void
wait_for_partitions(const char *name, int count)
{
	int64_t end = now_ms() + TIMEOUT_MS;

	while (live_partitions(name) != count)
	{
		if (now_ms() > end)
			fail("topic \"%s\" does not get %d live partitions", name, count);
		pause_ms(20);
	}
}

/* The answer to an admin request; exits when it is an error. */
static void
await_answer(rd_kafka_queue_t *queue)
{
	rd_kafka_event_t *event = rd_kafka_queue_poll(queue, TIMEOUT_MS);
	const rd_kafka_topic_result_t **topics = NULL;
	const rd_kafka_topic_partition_list_t *offsets;
	const rd_kafka_acl_result_t **acls;
	const rd_kafka_DeleteAcls_result_response_t **deleted;
	size_t nacls = 0;
	const rd_kafka_group_result_t **groups = NULL;
	size_t ngroups = 0;
	size_t count = 0;

	if (event == NULL)
		fail("no answer");
	if (rd_kafka_event_error(event))
		fail("%s", rd_kafka_event_error_string(event));
	switch (rd_kafka_event_type(event))
	{
		case RD_KAFKA_EVENT_CREATETOPICS_RESULT:
			topics = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event),
														 &count);
			break;
		case RD_KAFKA_EVENT_DELETETOPICS_RESULT:
			topics = rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event),
														 &count);
			break;
		case RD_KAFKA_EVENT_CREATEPARTITIONS_RESULT:
			topics = rd_kafka_CreatePartitions_result_topics(
				rd_kafka_event_CreatePartitions_result(event), &count);
			break;
		case RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT:
			groups = rd_kafka_ListConsumerGroupOffsets_result_groups(
				rd_kafka_event_ListConsumerGroupOffsets_result(event), &ngroups);
			offsets = rd_kafka_group_result_partitions(groups[0]);
			for (int i = 0; offsets && i < offsets->cnt; i++)
				printf("%s %d %lld\n", offsets->elems[i].topic, offsets->elems[i].partition,
					   (long long) offsets->elems[i].offset);
			break;
		case RD_KAFKA_EVENT_DELETEGROUPS_RESULT:
			groups = rd_kafka_DeleteGroups_result_groups(rd_kafka_event_DeleteGroups_result(event),
														 &ngroups);
			break;
		case RD_KAFKA_EVENT_DELETERECORDS_RESULT:
			offsets =
				rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event));
			for (int i = 0; i < offsets->cnt; i++)
				if (offsets->elems[i].err)
					fail("%s", rd_kafka_err2str(offsets->elems[i].err));
			break;
		case RD_KAFKA_EVENT_CREATEACLS_RESULT:
			acls = rd_kafka_CreateAcls_result_acls(rd_kafka_event_CreateAcls_result(event), &nacls);
			for (size_t i = 0; i < nacls; i++)
				if (rd_kafka_acl_result_error(acls[i]))
					fail("%s", rd_kafka_error_string(rd_kafka_acl_result_error(acls[i])));
			break;
		case RD_KAFKA_EVENT_DELETEACLS_RESULT:
			deleted = rd_kafka_DeleteAcls_result_responses(rd_kafka_event_DeleteAcls_result(event),
														   &nacls);
			for (size_t i = 0; i < nacls; i++)
				if (rd_kafka_DeleteAcls_result_response_error(deleted[i]))
					fail("%s", rd_kafka_error_string(
								   rd_kafka_DeleteAcls_result_response_error(deleted[i])));
			break;
		default:
			fail("unexpected event %s", rd_kafka_event_name(event));
	}
	for (size_t i = 0; i < count; i++)
		if (rd_kafka_topic_result_error(topics[i]))
			fail("%s", rd_kafka_topic_result_error_string(topics[i]));
	for (size_t i = 0; i < ngroups; i++)
		if (rd_kafka_group_result_error(groups[i]))
			fail("%s", rd_kafka_error_string(rd_kafka_group_result_error(groups[i])));
	rd_kafka_event_destroy(event);
}

static void
ping(int brokers)
{
	int64_t end = now_ms() + TIMEOUT_MS;

	for (;;)
	{
		const struct rd_kafka_metadata *md;

		if (rd_kafka_metadata(client, 0, NULL, &md, 500) == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			int count = md->broker_cnt;

			rd_kafka_metadata_destroy(md);
			if (count >= brokers)
				return;
		}
		if (now_ms() > end)
			fail("%d brokers do not answer at %s", brokers, address);
		pause_ms(20);
	}
}

static void
create_topic(const char *name, int partitions, char **configs, int count)
{
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	rd_kafka_NewTopic_t *topic;
	int replication = 1;

	for (int i = 0; i < count; i++)
		if (strncmp(configs[i], "replication=", 12) == 0)
			replication = atoi(configs[i] + 12);
	topic = rd_kafka_NewTopic_new(name, partitions, replication, errstr, sizeof(errstr));
	if (topic == NULL)
		fail("%s", errstr);
	for (int i = 0; i < count; i++)
	{
		char *value = strchr(configs[i], '=');

		if (value == NULL)
			fail("NAME=VALUE expected: %s", configs[i]);
		if (strncmp(configs[i], "replication=", 12) == 0)
			continue;
		*value++ = '\0';
		if (rd_kafka_NewTopic_set_config(topic, configs[i], value))
			fail("could not set %s", configs[i]);
	}
	rd_kafka_CreateTopics(client, &topic, 1, NULL, queue);
	await_answer(queue);
	wait_for_partitions(name, partitions);
}

static void
delete_topic(const char *name)
{
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	rd_kafka_DeleteTopic_t *topic = rd_kafka_DeleteTopic_new(name);

	rd_kafka_DeleteTopics(client, &topic, 1, NULL, queue);
	await_answer(queue);
	wait_for_partitions(name, -1);
}

static void
grow_topic(const char *name, int partitions)
{
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	rd_kafka_NewPartitions_t *grown =
		rd_kafka_NewPartitions_new(name, partitions, errstr, sizeof(errstr));

	if (grown == NULL)
		fail("%s", errstr);
	rd_kafka_CreatePartitions(client, &grown, 1, NULL, queue);
	await_answer(queue);
	wait_for_partitions(name, partitions);
}

static void
delete_records(const char *name, int partition, int64_t offset)
{
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(1);
	rd_kafka_DeleteRecords_t *request;

	rd_kafka_topic_partition_list_add(offsets, name, partition)->offset =
		offset < 0 ? RD_KAFKA_OFFSET_END : offset;
	request = rd_kafka_DeleteRecords_new(offsets);
	rd_kafka_DeleteRecords(client, &request, 1, NULL, queue);
	await_answer(queue);
}

static rd_kafka_AclOperation_t
operation_of(const char *name)
{
	for (int i = RD_KAFKA_ACL_OPERATION_ANY; i < RD_KAFKA_ACL_OPERATION__CNT; i++)
		if (strcasecmp(rd_kafka_AclOperation_name(i), name) == 0)
			return i;
	fail("there is no operation %s", name);
}

/* A rule of the authorizer, for every host and for the name as it is. */
static void
change_acl(char **words)
{
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	bool add = strcmp(words[0], "add") == 0;
	rd_kafka_AclPermissionType_t permission = strcmp(words[1], "deny") == 0
												  ? RD_KAFKA_ACL_PERMISSION_TYPE_DENY
												  : RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW;
	rd_kafka_ResourceType_t resource = strcmp(words[4], "topic") == 0   ? RD_KAFKA_RESOURCE_TOPIC
									   : strcmp(words[4], "group") == 0 ? RD_KAFKA_RESOURCE_GROUP
																		: RD_KAFKA_RESOURCE_BROKER;
	rd_kafka_AclOperation_t operation = operation_of(words[3]);
	rd_kafka_AclBinding_t *acl = (add ? rd_kafka_AclBinding_new : rd_kafka_AclBindingFilter_new)(
		resource, words[5], RD_KAFKA_RESOURCE_PATTERN_LITERAL, words[2], "*", operation, permission,
		errstr, sizeof(errstr));

	if (acl == NULL)
		fail("%s", errstr);
	if (add)
		rd_kafka_CreateAcls(client, &acl, 1, NULL, queue);
	else
		rd_kafka_DeleteAcls(client, &acl, 1, NULL, queue);
	await_answer(queue);
}

static void
watermarks(const char *name)
{
	int partitions = live_partitions(name);

	if (partitions < 0)
		fail("topic \"%s\" does not exist", name);
	for (int i = 0; i < partitions; i++)
	{
		int64_t low;
		int64_t high;
		rd_kafka_resp_err_t err =
			rd_kafka_query_watermark_offsets(client, name, i, &low, &high, TIMEOUT_MS);

		if (err)
			fail("%s", rd_kafka_err2str(err));
		printf("%d %lld %lld\n", i, (long long) low, (long long) high);
	}
}

static void
wait_high(const char *name, int partition, int64_t offset)
{
	int64_t end = now_ms() + TIMEOUT_MS;
	int64_t low;
	int64_t high = -1;

	while (high < offset)
	{
		if (now_ms() > end)
			fail("the high watermark is %lld still", (long long) high);
		rd_kafka_query_watermark_offsets(client, name, partition, &low, &high, TIMEOUT_MS);
		pause_ms(high < offset ? 10 : 0);
	}
}

static void
list_group(const char *id)
{
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	rd_kafka_ListConsumerGroupOffsets_t *request = rd_kafka_ListConsumerGroupOffsets_new(id, NULL);
	rd_kafka_AdminOptions_t *options =
		rd_kafka_AdminOptions_new(client, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS);

	/* a coordinator that has gone: whoever waits asks again */
	rd_kafka_AdminOptions_set_request_timeout(options, 5000, errstr, sizeof(errstr));
	rd_kafka_ListConsumerGroupOffsets(client, &request, 1, options, queue);
	await_answer(queue);
}

static void
delete_group(const char *id)
{
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	rd_kafka_DeleteGroup_t *request = rd_kafka_DeleteGroup_new(id);

	rd_kafka_DeleteGroups(client, &request, 1, NULL, queue);
	await_answer(queue);
}

/* A record's partition and key. */
typedef struct Key
{
	int32_t partition;
	size_t len;
	char *data;
} Key;

typedef struct Keys
{
	Key *keys;
	size_t count;
	size_t size;
} Keys;

static int
compare_keys(const void *a, const void *b)
{
	const Key *x = a;
	const Key *y = b;

	if (x->partition != y->partition)
		return x->partition < y->partition ? -1 : 1;
	if (x->len != y->len)
		return x->len < y->len ? -1 : 1;
	return memcmp(x->data, y->data, x->len);
}

/* The keys of all records that are in the topic now, but for those of our own. */
static Keys
read_keys(rd_kafka_t *consumer, const char *name, int partitions)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions);
	Keys keys = { 0 };
	int open = partitions;

	for (int i = 0; i < partitions; i++)
		rd_kafka_topic_partition_list_add(list, name, i)->offset = RD_KAFKA_OFFSET_BEGINNING;
	rd_kafka_assign(consumer, list);
	rd_kafka_topic_partition_list_destroy(list);
	while (open > 0)
	{
		rd_kafka_message_t *msg = rd_kafka_consumer_poll(consumer, TIMEOUT_MS);

		if (msg == NULL)
			fail("no records and no end of topic \"%s\"", name);
		if (msg->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
			open--;
		else if (msg->err)
			fail("%s", rd_kafka_message_errstr(msg));
		else if (msg->key != NULL && !(msg->key_len == strlen(ROLL_KEY) &&
									   memcmp(msg->key, ROLL_KEY, msg->key_len) == 0))
		{
			Key *key;

			if (keys.count == keys.size)
			{
				keys.size = keys.size * 2 + 1024;
				keys.keys = realloc(keys.keys, keys.size * sizeof(Key));
			}
			key = &keys.keys[keys.count++];
			key->partition = msg->partition;
			key->len = msg->key_len;
			key->data = malloc(msg->key_len + 1);
			memcpy(key->data, msg->key, msg->key_len);
		}
		rd_kafka_message_destroy(msg);
	}
	rd_kafka_assign(consumer, NULL);
	return keys;
}

static bool
has_duplicates(Keys *keys)
{
	qsort(keys->keys, keys->count, sizeof(Key), compare_keys);
	for (size_t i = 1; i < keys->count; i++)
		if (compare_keys(&keys->keys[i - 1], &keys->keys[i]) == 0)
			return true;
	return false;
}

static bool
has_key(const Keys *keys, const char *key)
{
	for (size_t i = 0; i < keys->count; i++)
		if (keys->keys[i].len == strlen(key) && memcmp(keys->keys[i].data, key, strlen(key)) == 0)
			return true;
	return false;
}

/* Wait until no key occurs twice or, if a key is given, until that one does not occur. */
static void
wait_for_cleaner(const char *name, const char *gone)
{
	rd_kafka_t *consumer = new_client(RD_KAFKA_CONSUMER);
	int64_t end = now_ms() + TIMEOUT_MS;
	int64_t next_roll = 0;
	int partitions = live_partitions(name);

	if (partitions < 0)
		fail("topic \"%s\" does not exist", name);
	for (;;)
	{
		Keys keys = read_keys(consumer, name, partitions);
		bool waiting = gone != NULL ? has_key(&keys, gone) : has_duplicates(&keys);

		for (size_t i = 0; i < keys.count; i++)
			free(keys.keys[i].data);
		free(keys.keys);
		if (!waiting)
			break;
		if (now_ms() > end)
			fail("topic \"%s\" was not compacted in time", name);
		if (now_ms() >= next_roll)
		{
			for (int i = 0; i < partitions; i++)
				rd_kafka_producev(client, RD_KAFKA_V_TOPIC(name), RD_KAFKA_V_PARTITION(i),
								  RD_KAFKA_V_KEY(ROLL_KEY, strlen(ROLL_KEY)),
								  RD_KAFKA_V_VALUE(NULL, 0), RD_KAFKA_V_END);
			rd_kafka_flush(client, TIMEOUT_MS);
			next_roll = now_ms() + 1000;
		}
		pause_ms(100);
	}
	rd_kafka_consumer_close(consumer);
	rd_kafka_destroy(consumer);
}

int
main(int argc, char **argv)
{
	const char *verb = argc > 2 ? argv[2] : "";

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	address = argc > 1 ? argv[1] : "";
	client = new_client(RD_KAFKA_PRODUCER);
	if (strcmp(verb, "ping") == 0 && argc == 4)
		ping(atoi(argv[3]));
	else if (strcmp(verb, "topic") == 0 && argc >= 5)
		create_topic(argv[3], atoi(argv[4]), argv + 5, argc - 5);
	else if (strcmp(verb, "delete") == 0 && argc == 4)
		delete_topic(argv[3]);
	else if (strcmp(verb, "partitions") == 0 && argc == 5)
		grow_topic(argv[3], atoi(argv[4]));
	else if (strcmp(verb, "delete-records") == 0 && argc == 6)
		delete_records(argv[3], atoi(argv[4]), atoll(argv[5]));
	else if (strcmp(verb, "acl") == 0 && argc == 9)
		change_acl(argv + 3);
	else if (strcmp(verb, "watermarks") == 0 && argc == 4)
		watermarks(argv[3]);
	else if (strcmp(verb, "group") == 0 && argc == 4)
		list_group(argv[3]);
	else if (strcmp(verb, "delete-group") == 0 && argc == 4)
		delete_group(argv[3]);
	else if (strcmp(verb, "wait-high") == 0 && argc == 6)
		wait_high(argv[3], atoi(argv[4]), atoll(argv[5]));
	else if (strcmp(verb, "wait-compacted") == 0 && argc == 4)
		wait_for_cleaner(argv[3], NULL);
	else if (strcmp(verb, "wait-gone") == 0 && argc == 5)
		wait_for_cleaner(argv[3], argv[4]);
	else
	{
		fprintf(stderr, "usage: see the top of test/kafka_admin.c\n");
		return 2;
	}
	return 0;
}
