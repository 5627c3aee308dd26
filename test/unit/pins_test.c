/*
 * pins_test.c
 *		Pins: their states one by one, and the race between a writer and those who pin.
 */
#include "store_stubs.h"

#include "cases.h"
#include "pins_stubs.h"

/* its file-scope variables are a process', and some processes here are forked */
#include "../../src/pins.c"

#include <sys/wait.h>
#include <unistd.h>

static long passed = 0;
static long failed = 0;

#define CHECK(condition)                                                                           \
	do                                                                                             \
	{                                                                                              \
		if (condition)                                                                             \
			passed++;                                                                              \
		else                                                                                       \
		{                                                                                          \
			failed++;                                                                              \
			printf("FAILED line %d: %s\n", __LINE__, #condition);                                  \
		}                                                                                          \
	} while (0)

static void
become_another_process(void)
{
	mine = NULL;
	depth = 0;
	kcf_pin_doom = &no_doom;
}

static void
test_states(void)
{
	KcfSeq seqs[KCF_MAX_CLOCKS];
	KcfSeq newer[KCF_MAX_CLOCKS];

	MyProc = &procs[1];
	CHECK(kcf_clock_published(3, 2) == 1);
	CHECK(kcf_clock_publish(3, 2) == 2);
	CHECK(kcf_clock_published(3, 1) == 1 && kcf_clock_published(2, 2) == 1);
	CHECK(kcf_pins_min(3, 2) == 2);
	CHECK(!kcf_pin_doomed());

	/* a pin holds back its own clock's minimum in its own database only */
	CHECK(kcf_pin_enter());
	kcf_pin_set(3, seqs, 100);
	CHECK(seqs[2] == 2 && seqs[0] == 1);
	for (int i = 0; i < 5; i++)
		kcf_clock_publish(3, 2);
	for (int i = 0; i < 9; i++)
		kcf_clock_publish(4, 2);
	CHECK(kcf_pins_min(3, 2) == 2);
	CHECK(kcf_pins_min(4, 2) == 10);

	/* a second state under the same pin; the pin stays, then moves */
	kcf_pin_set(3, newer, 200);
	CHECK(newer[2] == 7);
	CHECK(kcf_pins_min(3, 2) == 2);
	kcf_pin_move(newer, 200);
	CHECK(kcf_pins_min(3, 2) == 7);
	kcf_clock_publish(3, 2);

	/* too young, or not in the way, or of another database */
	CHECK(kcf_pins_revoke_older(3, 2, 8, 200) == 0);
	CHECK(kcf_pins_revoke_older(3, 2, 7, 300) == 0);
	CHECK(kcf_pins_revoke_older(4, 2, 8, 300) == 0);
	CHECK(!kcf_pin_doomed());

	/* running: doomed, still protected, until it moves */
	CHECK(kcf_pins_revoke_older(3, 2, 8, 300) == 1);
	CHECK(kcf_pin_doomed());
	CHECK(kcf_pins_min(3, 2) == 7);
	kcf_pin_set(3, newer, 400);
	CHECK(kcf_pin_doomed());
	kcf_pin_move(newer, 400);
	CHECK(!kcf_pin_doomed());
	CHECK(kcf_pins_min(3, 2) == 8);
	kcf_clock_publish(3, 2);

	/* idle: taken at once; the backend learns it when it enters, and may begin anew */
	kcf_pin_leave();
	CHECK(kcf_pins_revoke_older(3, 2, 9, 500) == 1);
	CHECK(kcf_pins_min(3, 2) == 9);
	CHECK(kcf_pins_revoke_older(3, 2, 9, 500) == 0);
	CHECK(!kcf_pin_enter());
	CHECK(kcf_pin_enter()); /* inside the first */
	kcf_pin_set(3, seqs, 600);
	CHECK(seqs[2] == 9);
	kcf_clock_publish(3, 2);

	/* doomed and out of the executor without giving up: gone */
	CHECK(kcf_pins_revoke_older(3, 2, 10, 700) == 1);
	kcf_pin_leave();
	CHECK(kcf_pins_min(3, 2) == 9); /* still inside the first */
	kcf_pin_leave();
	CHECK(kcf_pins_min(3, 2) == 10);
	CHECK(!kcf_pin_enter());
	kcf_pin_leave();

	/* transaction end from any state */
	CHECK(kcf_pin_enter());
	kcf_pin_set(3, seqs, 800);
	kcf_pin_reset(false);
	kcf_clock_publish(3, 2);
	CHECK(kcf_pins_min(3, 2) == 11);
	CHECK(kcf_pin_enter());
	kcf_pin_leave();

	/* and a process that goes leaves nothing */
	kcf_pin_set(3, seqs, 900);
	kcf_clock_publish(3, 2);
	CHECK(kcf_pins_min(3, 2) == 11);
	kcf_pin_show(seqs);
	stub_exit(0, 0);
	CHECK(kcf_pins_min(3, 2) == 12);
}

/* What a worker in another process gets of its leader: 0 nothing, 1 the vector, 2 an error. */
static int
ask_as_worker(KcfSeq expected)
{
	int status;

	fflush(stdout);
	if (fork() == 0)
	{
		KcfSeq seqs[KCF_MAX_CLOCKS];
		jmp_buf error;
		bool shown;

		MyProc = &procs[2];
		MyProc->lockGroupLeader = &procs[1];
		become_another_process();
		stub_error = &error;
		if (setjmp(error) != 0)
			_exit(stub_sqlstate == MAKE_SQLSTATE('7', '2', '0', '0', '0') ? 2 : 9);
		shown = kcf_pin_of_leader(seqs, 5000);
		if (shown && (seqs[2] != expected || kcf_pins_min(5, 2) > expected))
			_exit(8);
		if (shown)
			stub_exit(0, 0);
		_exit(shown);
	}
	wait(&status);
	return WEXITSTATUS(status);
}

static void
test_leader(void)
{
	KcfSeq old[KCF_MAX_CLOCKS];
	KcfSeq shown[KCF_MAX_CLOCKS];

	MyProc = &procs[1];
	CHECK(ask_as_worker(0) == 0);
	CHECK(kcf_pin_enter());
	kcf_pin_set(5, old, 100);
	kcf_clock_publish(5, 2);
	kcf_pin_set(5, shown, 100);
	CHECK(ask_as_worker(0) == 0);
	kcf_pin_show(shown);
	CHECK(ask_as_worker(2) == 1);
	kcf_pin_show(old);
	CHECK(ask_as_worker(1) == 1);
	kcf_clock_publish(5, 2);
	CHECK(kcf_pins_revoke_older(5, 2, 3, 200) == 1);
	CHECK(ask_as_worker(1) == 2);
	kcf_pin_move(shown, 300);
	kcf_pin_show(shown);
	CHECK(ask_as_worker(2) == 1);
	kcf_pin_show(NULL);
	CHECK(ask_as_worker(2) == 0);
	kcf_pin_reset(false);
}

/*
 * A writer publishes and "frees" up to the minimum as fast as it can; a reader that holds e must
 * never see more than e freed.
 */
static void
test_race(long turns)
{
	bool found;
	pg_atomic_uint64 *freed = ShmemInitStruct("freed", sizeof(uint64), &found);
	pg_atomic_uint64 *over = ShmemInitStruct("over", sizeof(uint64), &found);
	int status;
	pid_t pid;

	pid = fork();
	if (pid == 0)
	{
		MyProc = &procs[3];
		become_another_process();
		for (long i = 0; i < turns; i++)
		{
			KcfSeq seqs[KCF_MAX_CLOCKS];

			kcf_pin_set(6, seqs, 0);
			if (pg_atomic_read_u64(freed) > seqs[0])
				_exit(1);
			kcf_pin_release();
		}
		pg_atomic_write_u64(over, 1);
		_exit(0);
	}
	while (pg_atomic_read_u64(over) == 0 && waitpid(pid, &status, WNOHANG) == 0)
	{
		for (int i = 0; i < 1000; i++)
		{
			KcfSeq min;

			kcf_clock_publish(6, 0);
			min = kcf_pins_min(6, 0);
			if (min > pg_atomic_read_u64(freed))
				pg_atomic_write_u64(freed, min);
		}
	}
	waitpid(pid, &status, 0);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	CHECK(kcf_pins_min(6, 0) == kcf_clock_published(6, 0));
}

int
main(void)
{
	stub_shared_memory((Size) 1024 * 1024);
	kcf_pins_shmem_init();
	CASE(test_states(), failed);
	CASE(test_leader(), failed);
	CASE(test_race(3000000), failed);
	return cases_report("pins", passed + failed);
}
