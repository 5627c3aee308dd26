# kafka_cache_fdw: `make` builds, `make install` installs, `make demo` shows it, `make check` tests it;
# `make help` lists the rest.

EXTENSION  = kafka_cache_fdw
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" $(EXTENSION).control)
MODULE_big = $(EXTENSION)
OBJS       = $(patsubst %.c,%.o,$(wildcard $(EXTENSION).c) $(sort $(wildcard src/*.c)))
DATA       = $(wildcard sql/$(EXTENSION)--*.sql)

PG_CONFIG  ?= pg_config
PKG_CONFIG ?= pkg-config

# PostgreSQL's headers are system headers, so that -Wall -Wextra speaks of our own code.
PG_CPPFLAGS = -I$(srcdir)/src -DKCF_VERSION='"$(EXTVERSION)"' \
              -isystem $(shell $(PG_CONFIG) --includedir-server 2>/dev/null) \
              $(shell $(PKG_CONFIG) --cflags rdkafka jansson 2>/dev/null)
PG_CFLAGS   = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers \
              -Wno-declaration-after-statement $(PG_CFLAGS_EXTRA)
SHLIB_LINK  = $(shell $(PKG_CONFIG) --libs rdkafka jansson 2>/dev/null)
with_llvm   = no
EXTRA_CLEAN = build compile_commands.json

# The targets of this house install what they need and call make again for what PGXS does, so they
# work before there is a PGXS, and `check` is ours.
HOUSE = private setup tools help

ifeq ($(filter $(HOUSE) build/bin/%,$(MAKECMDGOALS)),)

PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq ($(wildcard $(PGXS)),)
$(error PostgreSQL's server headers are not installed: run test/setup)
endif
include $(PGXS)

# Objects depend on every header: the tree is small, and a stale object costs more than a compilation.
$(OBJS): $(wildcard src/*.h)

else

.DEFAULT:
	@$(MAKE) --no-print-directory $@

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

setup: ## install what building and checking need (Debian)
	@test/setup build check

private: setup ## a private PostgreSQL in build/pg<major> with the extension installed
	@$(MAKE) --no-print-directory -s all
	@test/pg install

# --- programs of the tests -----------------------------------------------------------------------

TOOLS       = build/bin/mock_kafka build/bin/kafka_admin build/bin/producer
TOOL_COMMON = test/line.c test/produce.c
TOOL_CFLAGS = -std=gnu11 -O2 -g -Wall -Wextra $(PG_CFLAGS_EXTRA)

tools: setup ## the mock broker and the clients the tests use, in build/bin
	@$(MAKE) --no-print-directory -s $(TOOLS)

build/bin/%: test/%.c $(TOOL_COMMON) $(wildcard test/*.h)
	@mkdir -p $(@D)
	$(CC) $(TOOL_CFLAGS) $(shell $(PKG_CONFIG) --cflags rdkafka) $< $(TOOL_COMMON) -o $@ \
		$(shell $(PKG_CONFIG) --libs rdkafka)

.PHONY: $(HOUSE)
endif
