/*
 * kafka_group.c
 *		The client that writes positions to a group's coordinator.
 *
 * It has no group id by the library's knowledge, so the library neither looks for a coordinator all
 * the time nor keeps up a membership: each commit is a request of its own. Who is the coordinator
 * the library remembers, and does not forget when it is another one by now; the caller makes a new
 * client then.
 */
#include "postgres.h"

#include "kafka_group.h"
#include "kafka_internal.h"

/* A commit that takes longer has failed. */
#define COMMIT_TIMEOUT_MS 10000

struct KcfKafkaGroup
{
	KcfKafkaClient client;
	char *id;
	rd_kafka_topic_partition_list_t *next; /* for the next commit; NULL: none yet */
	int asked;                             /* positions in the commit that is under way */

	/* Of the last commit. */
	KcfKafkaFault fault;
	int taken;
	rd_kafka_topic_partition_list_t *failed; /* NULL: all or none, as taken says */
};

static const KcfKafkaSetting none[] = { { NULL } };

const char *
kcf_kafka_group_id(const KcfServerOptions *server)
{
	ListCell *lc;

	foreach (lc, server->properties)
	{
		const KcfProperty *property = lfirst(lc);

		if (strcmp(property->name, "group.id") == 0)
			return property->value;
	}
	return NULL;
}

/* ---- life ---------------------------------------------------------------------------------- */

static void
forget_list(rd_kafka_topic_partition_list_t **list)
{
	if (*list)
		rd_kafka_topic_partition_list_destroy(*list);
	*list = NULL;
}

static void
end_group(KcfKafkaClient *client)
{
	KcfKafkaGroup *group = (KcfKafkaGroup *) client;

	forget_list(&group->next);
	forget_list(&group->failed);
	if (client->rk)
		kcf_kafka_wake_by(client->events, -1);
	kcf_kafka_client_leave(client);
}

KcfKafkaGroup *
kcf_kafka_group_create(const KcfServerOptions *server, int wakeup_fd, KcfKafkaFault *fault)
{
	const char *id = kcf_kafka_group_id(server);
	KcfKafkaClient *client = kcf_kafka_client_create(sizeof(KcfKafkaGroup), "group", id, server);
	KcfKafkaGroup *group = (KcfKafkaGroup *) client;
	rd_kafka_conf_t *conf;

	client->end = end_group;
	group->id = MemoryContextStrdup(client->mcxt, id);
	conf = kcf_kafka_configure(client, server, RD_KAFKA_CONSUMER, none, none, fault);
	if (conf)
		rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
	if (conf == NULL || !kcf_kafka_client_start(client, RD_KAFKA_CONSUMER, conf, wakeup_fd, fault))
	{
		end_group(client);
		return NULL;
	}
	return group;
}

void
kcf_kafka_group_end(KcfKafkaGroup *group)
{
	end_group(&group->client);
}

/* ---- commits ------------------------------------------------------------------------------- */

void
kcf_kafka_group_add(KcfKafkaGroup *group, const char *topic, int32 partition, int64 next)
{
	if (group->next == NULL)
		group->next = rd_kafka_topic_partition_list_new(16);
	rd_kafka_topic_partition_list_add(group->next, topic, partition)->offset = next;
}

void
kcf_kafka_group_commit(KcfKafkaGroup *group)
{
	rd_kafka_AlterConsumerGroupOffsets_t *request;
	rd_kafka_AdminOptions_t *options;
	char text[128];

	Assert(group->asked == 0);
	if (group->next == NULL)
		return;
	request = rd_kafka_AlterConsumerGroupOffsets_new(group->id, group->next);
	options =
		rd_kafka_AdminOptions_new(group->client.rk, RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS);
	(void) rd_kafka_AdminOptions_set_request_timeout(options, COMMIT_TIMEOUT_MS, text,
													 sizeof(text));
	rd_kafka_AlterConsumerGroupOffsets(group->client.rk, &request, 1, options,
									   group->client.events);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_AlterConsumerGroupOffsets_destroy(request);
	group->asked = group->next->cnt;
	forget_list(&group->next);
}

/* Positions that were not taken, one by one. */
static void
read_positions(KcfKafkaGroup *group, const rd_kafka_topic_partition_list_t *positions)
{
	for (int i = 0; i < positions->cnt; i++)
	{
		const rd_kafka_topic_partition_t *p = &positions->elems[i];

		if (p->err == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			group->taken++;
			continue;
		}
		if (kcf_kafka_error(p->err) == KCF_KAFKA_NO_TOPIC)
			continue;
		if (group->fault.error == KCF_KAFKA_OK)
			kcf_kafka_fault(&group->client, &group->fault, p->err, NULL);
		if (group->failed == NULL)
			group->failed = rd_kafka_topic_partition_list_new(positions->cnt);
		rd_kafka_topic_partition_list_add(group->failed, p->topic, p->partition);
	}
}

static void
read_answer(KcfKafkaGroup *group, rd_kafka_event_t *event)
{
	rd_kafka_resp_err_t err = rd_kafka_event_error(event);
	const rd_kafka_group_result_t **results;
	const rd_kafka_error_t *error;
	size_t n = 0;

	group->asked = 0;
	group->taken = 0;
	group->fault.error = KCF_KAFKA_OK;
	forget_list(&group->failed);
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		/* the library's own text begins with the name of a function */
		kcf_kafka_fault(&group->client, &group->fault, err, NULL);
		return;
	}
	results = rd_kafka_AlterConsumerGroupOffsets_result_groups(
		rd_kafka_event_AlterConsumerGroupOffsets_result(event), &n);
	for (size_t i = 0; i < n; i++)
	{
		error = rd_kafka_group_result_error(results[i]);
		if (error)
			kcf_kafka_fault(&group->client, &group->fault, rd_kafka_error_code(error),
							rd_kafka_error_string(error));
		else if (rd_kafka_group_result_partitions(results[i]))
			read_positions(group, rd_kafka_group_result_partitions(results[i]));
	}
}

bool
kcf_kafka_group_serve(KcfKafkaGroup *group)
{
	bool answered = false;
	rd_kafka_event_t *event;

	while ((event = rd_kafka_queue_poll(group->client.events, 0)) != NULL)
	{
		if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ALTERCONSUMERGROUPOFFSETS_RESULT)
		{
			read_answer(group, event);
			answered = true;
		}
		/* Whatever else it has to say of the brokers, the tables' own clients say, too. */
		rd_kafka_event_destroy(event);
	}
	return answered;
}

const KcfKafkaFault *
kcf_kafka_group_fault(const KcfKafkaGroup *group)
{
	return &group->fault;
}

int
kcf_kafka_group_taken(const KcfKafkaGroup *group)
{
	return group->taken;
}

bool
kcf_kafka_group_failed(const KcfKafkaGroup *group, const char *topic, int32 partition)
{
	if (group->failed)
		return rd_kafka_topic_partition_list_find(group->failed, topic, partition) != NULL;
	return group->fault.error != KCF_KAFKA_OK;
}
