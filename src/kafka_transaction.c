/*
 * kafka_transaction.c
 *		The steps of Kafka transactions, each in a thread of its own.
 *
 * The library has no other way: its calls block, and calling them again and again with a short time is not safe. An
 * answer that comes between two calls is taken for that of another part of the next one, and where a call has run
 * out of time in its first part, the library ends the process by an assertion when the brokers' answer comes. With
 * unlimited time none of that happens. So this is the one place where a thread of ours runs: it calls the library,
 * notes what that returns, writes to a file descriptor and ends. Of the server it touches nothing, and no signal
 * reaches it, like the library's own threads.
 */
#include "postgres.h"

#include <signal.h>
#include <unistd.h>

#include "kafka_internal.h"

/* ---- in the thread ------------------------------------------------------------------------- */

static void *
run_step(void *arg)
{
	KcfKafkaProducer *producer = arg;
	rd_kafka_t *rk = producer->client.rk;
	const uint64 one = 1;

	producer->error = producer->step(rk, -1);
	if (producer->error == NULL)
		producer->error = rd_kafka_begin_transaction(rk);
	pg_write_barrier();
	pg_atomic_write_u32(&producer->returned, 1);
	/* Full only if it was written to four billion times four billion times: then it is readable too. */
	(void) !write(producer->wakeup_fd, &one, sizeof(one));
	return NULL;
}

/* ---- outside ------------------------------------------------------------------------------- */

static void
begin_step(KcfKafkaProducer *producer, rd_kafka_error_t *(*step)(rd_kafka_t *rk, int timeout_ms))
{
	sigset_t all;
	sigset_t before;

	Assert(!producer->stepping);
	producer->step = step;
	producer->error = NULL;
	pg_atomic_init_u32(&producer->returned, 0);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	producer->stepping = pthread_create(&producer->thread, NULL, run_step, producer) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!producer->stepping && !producer->broken)
	{
		producer->broken = true;
		producer->trouble.error = KCF_KAFKA_OTHER;
		strlcpy(producer->trouble.text, "could not create a thread",
				sizeof(producer->trouble.text));
	}
}

void
kcf_kafka_init_transactions(KcfKafkaProducer *producer)
{
	begin_step(producer, rd_kafka_init_transactions);
}

void
kcf_kafka_commit_transaction(KcfKafkaProducer *producer)
{
	begin_step(producer, rd_kafka_commit_transaction);
}

void
kcf_kafka_abort_transaction(KcfKafkaProducer *producer)
{
	begin_step(producer, rd_kafka_abort_transaction);
}

bool
kcf_kafka_is_stepping(const KcfKafkaProducer *producer)
{
	return producer->stepping &&
		   pg_atomic_read_u32(unconstify(pg_atomic_uint32 *, &producer->returned)) == 0;
}

void
kcf_kafka_step_end(KcfKafkaProducer *producer)
{
	if (!producer->stepping)
		return;
	pthread_join(producer->thread, NULL);
	producer->stepping = false;
	if (producer->error)
		rd_kafka_error_destroy(producer->error);
	producer->error = NULL;
}

KcfStep
kcf_kafka_step(KcfKafkaProducer *producer, KcfKafkaFault *fault)
{
	if (producer->stepping)
	{
		if (kcf_kafka_is_stepping(producer))
		{
			if (producer->trouble.error != KCF_KAFKA_OK)
				*fault = producer->trouble;
			return producer->broken ? KCF_STEP_BROKEN : KCF_STEP_AGAIN;
		}
		pg_read_barrier();
		/* Whatever it is: who has to abort after a commit does not know what was committed. */
		if (producer->error && !producer->broken)
		{
			rd_kafka_resp_err_t err = rd_kafka_error_code(producer->error);

			if (err != RD_KAFKA_RESP_ERR__TIMED_OUT || producer->trouble.error == KCF_KAFKA_OK)
				kcf_kafka_fault(&producer->client, &producer->trouble, err,
								rd_kafka_error_string(producer->error));
			producer->broken = true;
		}
		kcf_kafka_step_end(producer);
	}
	if (!producer->broken)
		return KCF_STEP_DONE;
	*fault = producer->trouble;
	return KCF_STEP_BROKEN;
}

/* It says so to whoever tries to begin another one. */
bool
kcf_kafka_transaction_fault(KcfKafkaProducer *producer, KcfKafkaFault *fault)
{
	rd_kafka_error_t *error;
	bool known;

	if (producer->stepping)
		return false;
	error = rd_kafka_begin_transaction(producer->client.rk);
	known = error != NULL &&
			(rd_kafka_error_txn_requires_abort(error) || rd_kafka_error_is_fatal(error));
	if (known)
		kcf_kafka_producer_fault(producer, fault, rd_kafka_error_code(error));
	if (error)
		rd_kafka_error_destroy(error);
	return known;
}
