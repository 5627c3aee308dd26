/*
 * faults.c
 *		A library to be loaded before a server (LD_PRELOAD): what a machine does to its processes.
 *
 *		Names of hosts that end in ".hangs" are never resolved: who asks waits for ever.
 *		The time of day is wrong by as many seconds as the file $KCF_CLOCK says, from the moment that
 *		it is written there; the clock that only goes forward by as many as follow (twice 8 bytes,
 *		numbers of the machine's own kind).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

enum
{
	TIME_OF_DAY,
	FORWARD,
	NCLOCKS
};

static int64_t
clock_error(int clock)
{
	static volatile int64_t *error = NULL;
	static int tried = 0;

	if (!tried)
	{
		const char *path = getenv("KCF_CLOCK");
		int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

		if (fd >= 0)
		{
			void *map = mmap(NULL, NCLOCKS * sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);

			if (map != MAP_FAILED)
				error = map;
			close(fd);
		}
		tried = 1;
	}
	return error ? error[clock] : 0;
}

int
clock_gettime(clockid_t clock, struct timespec *now)
{
	static int (*real)(clockid_t, struct timespec *) = NULL;
	int result;

	if (!real)
		real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
	result = real(clock, now);
	if (result == 0 && clock == CLOCK_REALTIME)
		now->tv_sec += clock_error(TIME_OF_DAY);
	else if (result == 0 && clock == CLOCK_MONOTONIC)
		now->tv_sec += clock_error(FORWARD);
	return result;
}

int
gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec time;

	(void) zone;
	if (clock_gettime(CLOCK_REALTIME, &time) != 0)
		return -1;
	now->tv_sec = time.tv_sec;
	now->tv_usec = time.tv_nsec / 1000;
	return 0;
}

int
timespec_get(struct timespec *now, int base)
{
	return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

/* Who waits until a time of day means the wrong one, and the kernel knows only the right one. */
int
cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex,
			  const struct timespec *restrict until)
{
	static int (*real)(cnd_t *, mtx_t *, const struct timespec *) = NULL;
	struct timespec right = *until;

	if (!real)
		real =
			(int (*)(cnd_t *, mtx_t *, const struct timespec *)) dlsym(RTLD_NEXT, "cnd_timedwait");
	right.tv_sec -= clock_error(TIME_OF_DAY);
	return real(condition, mutex, &right);
}

int
getaddrinfo(const char *restrict node, const char *restrict service,
			const struct addrinfo *restrict hints, struct addrinfo **restrict result)
{
	static const char hangs[] = ".hangs";
	static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
		NULL;
	size_t n = node ? strlen(node) : 0;

	if (n >= sizeof(hangs) && strcmp(node + n - strlen(hangs), hangs) == 0)
	{
		for (;;)
			pause();
	}
	if (!real)
		real = (int (*)(const char *, const char *, const struct addrinfo *,
						struct addrinfo **)) dlsym(RTLD_NEXT, "getaddrinfo");
	return real(node, service, hints, result);
}
