/*
 * pins_stubs.h
 *		What pins.c needs of the server, for programs of several processes without a server.
 *
 * Include it in one file, after store_stubs.h or postgres.h. A process chooses its place by
 * MyProc.
 */
#include "pins.h"
#include "storage/ipc.h"
#include "storage/proc.h"

#undef fprintf
#include <setjmp.h>
#include <stdio.h>
#include <sys/mman.h>

#define STUB_PROCS 4

static PGPROC procs[STUB_PROCS];
static PROC_HDR proc_header = { .allProcs = procs };
PROC_HDR *ProcGlobal = &proc_header;
PGPROC *MyProc = NULL;
int MaxBackends = STUB_PROCS;

/* Memory that processes share. */
static char *shared_end;
static char *shared_free;

static void
stub_shared_memory(Size size)
{
	shared_free = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared_free == MAP_FAILED)
		abort();
	shared_end = shared_free + size;
}

Size
add_size(Size a, Size b)
{
	return a + b;
}

Size
mul_size(Size a, Size b)
{
	return a * b;
}

void *
ShmemInitStruct(const char *name, Size size, bool *found)
{
	void *block = shared_free;

	shared_free += TYPEALIGN(4096, size);
	*found = false;
	return block;
}

void
kcf_keytype_seed(void)
{
}

/* The one callback there is. */
static pg_on_exit_callback stub_exit = NULL;

void
on_shmem_exit(pg_on_exit_callback callback, Datum arg)
{
	stub_exit = callback;
}

/* Errors go where the program says, or end it. */
static jmp_buf *stub_error = NULL;
static int stub_sqlstate;

bool
errstart(int level, const char *domain)
{
	return true;
}

bool
errstart_cold(int level, const char *domain)
{
	return true;
}

int
errcode(int sqlstate)
{
	stub_sqlstate = sqlstate;
	return 0;
}

int
errmsg(const char *fmt, ...)
{
	return 0;
}

int
errdetail(const char *fmt, ...)
{
	return 0;
}

void
errfinish(const char *file, int line, const char *function)
{
	if (stub_error == NULL)
	{
		fprintf(stderr, "%s:%d: an error was raised\n", file, line);
		abort();
	}
	longjmp(*stub_error, 1);
}
