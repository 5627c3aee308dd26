# kafka_cache_fdw: `make` builds, `make install` installs, `make demo` shows it, `make check` tests it;
# `make help` lists the rest.

EXTENSION  = kafka_cache_fdw
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" $(EXTENSION).control)
MODULE_big = $(EXTENSION)
# Every module, in the order of the alphabet.
OBJS = \
	kafka_cache_fdw.o \
	src/arena.o \
	src/arrivals.o \
	src/catalog.o \
	src/catalog_fingerprint.o \
	src/catalog_product.o \
	src/catalog_table.o \
	src/changes.o \
	src/codec.o \
	src/codec_json.o \
	src/codec_jsonb.o \
	src/codec_text.o \
	src/codec_time.o \
	src/codec_write.o \
	src/codec_write_json.o \
	src/codec_write_settings.o \
	src/codec_write_time.o \
	src/ddl.o \
	src/errlog.o \
	src/fdw_analyze.o \
	src/fdw_explain.o \
	src/fdw_inspect.o \
	src/fdw_key.o \
	src/fdw_modify.o \
	src/fdw_modify_check.o \
	src/fdw_modify_plan.o \
	src/fdw_plan.o \
	src/fdw_product.o \
	src/fdw_product_join.o \
	src/fdw_product_scan.o \
	src/fdw_relinfo.o \
	src/fdw_scan.o \
	src/fdw_sources.o \
	src/fdw_validate.o \
	src/feed.o \
	src/feed_client.o \
	src/feed_skip.o \
	src/feed_state.o \
	src/flights.o \
	src/frame.o \
	src/guc.o \
	src/histogram.o \
	src/ingest.o \
	src/json_paths.o \
	src/json_scan.o \
	src/json_walk.o \
	src/kafka.o \
	src/kafka_consumer.o \
	src/kafka_group.o \
	src/kafka_producer.o \
	src/kafka_spool.o \
	src/kafka_stats.o \
	src/kafka_transaction.o \
	src/keytype.o \
	src/metrics.o \
	src/metrics_read.o \
	src/metrics_show.o \
	src/notify.o \
	src/notify_notes.o \
	src/notify_payload.o \
	src/options.o \
	src/options_check.o \
	src/options_resolve.o \
	src/options_value.o \
	src/pending.o \
	src/pending_product.o \
	src/pending_send.o \
	src/pins.o \
	src/proc.o \
	src/proc_consumer.o \
	src/proc_consumer_catalog.o \
	src/proc_consumer_group.o \
	src/proc_consumer_load.o \
	src/proc_consumer_notify.o \
	src/proc_consumer_plans.o \
	src/proc_launcher.o \
	src/proc_producer.o \
	src/proc_producer_atomic.o \
	src/proc_producer_clients.o \
	src/proc_producer_flush.o \
	src/proc_refresher.o \
	src/product.o \
	src/product_compute.o \
	src/product_keep.o \
	src/product_fit.o \
	src/product_key.o \
	src/product_memo.o \
	src/properties.o \
	src/refresh_log.o \
	src/refreshq.o \
	src/refreshq_read.o \
	src/registry.o \
	src/registry_demand.o \
	src/registry_stores.o \
	src/registry_tables.o \
	src/rowmap.o \
	src/rowmap_headers.o \
	src/rowmap_key.o \
	src/rowmap_keytext.o \
	src/rowmap_members.o \
	src/rowmap_splice.o \
	src/rowmap_write.o \
	src/rules.o \
	src/rules_define.o \
	src/rules_domain.o \
	src/rules_drop.o \
	src/rules_keys.o \
	src/rules_list.o \
	src/rules_request.o \
	src/rules_source.o \
	src/rules_trigger.o \
	src/sendq.o \
	src/sendq_outcome.o \
	src/sendq_producer.o \
	src/shmem.o \
	src/snapshot.o \
	src/snapshot_executor.o \
	src/snapshot_wait.o \
	src/status.o \
	src/status_changes.o \
	src/status_fetch.o \
	src/status_position.o \
	src/status_refresh.o \
	src/status_set.o \
	src/status_wait.o \
	src/status_workers.o \
	src/store.o \
	src/store_compare.o \
	src/store_index.o \
	src/store_recycle.o \
	src/store_slab.o \
	src/store_write.o \
	src/withdraw.o \
	src/written.o
DATA       = $(wildcard sql/$(EXTENSION)--*.sql)

PG_CONFIG  ?= pg_config
PKG_CONFIG ?= pkg-config

# PostgreSQL's headers are system headers, so that -Wall -Wextra speaks of our own code. The exceptions:
#   unused-parameter             the server gives a callback its parameters, needed or not
#   missing-field-initializers   a row of a table leaves the fields that it has no word on at zero
#   declaration-after-statement  asked for by the server's own flags; a variable begins with its value
# C17, because compilers that take C23 for granted do not compile the headers of 15.
PG_CPPFLAGS = -I$(srcdir)/src -DKCF_VERSION='"$(EXTVERSION)"' \
              -isystem $(shell $(PG_CONFIG) --includedir-server 2>/dev/null) \
              $(shell $(PKG_CONFIG) --cflags rdkafka jansson 2>/dev/null)
PG_CFLAGS   = -std=gnu17 -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers \
              -Wno-declaration-after-statement $(PG_CFLAGS_EXTRA)
SHLIB_LINK  = $(shell $(PKG_CONFIG) --libs rdkafka jansson 2>/dev/null)
override with_llvm = no
# Libraries of the tests call our functions, which 16 and later would hide. What is visible carries our prefix.
override CFLAGS_SL_MODULE =
EXTRA_CLEAN = build compile_commands.json

# The targets of this house install what they need and call make again for what PGXS does: so they
# work before there is a PGXS, and `check` is ours.
HOUSE = help demo dev check check-style check-docs unit regress isolation tap check-long matrix bench \
        setup private tools jars compdb dist

ifeq ($(filter $(HOUSE) build/bin/%,$(MAKECMDGOALS)),)

PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq ($(wildcard $(PGXS)),)
$(error PostgreSQL's server headers are not installed: run test/setup)
endif
ifneq ($(sort $(OBJS:.o=.c)),$(sort $(EXTENSION).c $(wildcard src/*.c)))
$(error OBJS in Makefile and the files in src/ differ: $(filter-out $(OBJS:.o=.c),$(wildcard src/*.c)) \
	$(filter-out $(EXTENSION).c $(wildcard src/*.c),$(OBJS:.o=.c)))
endif
include $(PGXS)

# Objects depend on every header: the tree is small, and a stale object costs more than a compilation.
$(OBJS): $(wildcard src/*.h)

else

# Steps of one target follow each other; what can run at once runs at once inside them.
.NOTPARALLEL:
.PHONY: $(HOUSE)
AGAIN = @$(MAKE) --no-print-directory -s

.DEFAULT:
	$(AGAIN) $@

help:
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s  %s\n", $$1, $$2 }' Makefile

demo: ## see it work: a broker, a private PostgreSQL, the sample tables (KAFKA=real: with Apache Kafka)
	@examples/demo $(if $(filter real,$(KAFKA)),--real)

dev: ## the same, and psql stays open
	@examples/demo --stay $(if $(filter real,$(KAFKA)),--real)

check: ## every test; the last line counts them
	@test/setup build check kafka
	$(AGAIN) private tools jars
	@test/run style unit fuzz regress isolation tap

# T=part of a name chooses tests: make regress T=options
check-style: ## the rules of docs/architecture.md
	$(AGAIN) private
	@test/run style

check-docs: private tools ## documents against the library, and the README as it stands
	@test/run style regress:configuration tap:readme

unit: setup ## C without a server
	@test/run unit

regress: private tools ## SQL and its expected output
	@test/run regress:$(T)

isolation: private tools ## several sessions at once
	@test/run isolation:$(T)

tap: ## servers, brokers, crashes
	@test/setup build check kafka
	$(AGAIN) private tools jars
	@test/run tap:$(T)

check-long: ## what takes too long for every day
	@test/setup build check kafka
	$(AGAIN) private tools jars
	@test/run long:$(T)
	$(if $(T),,@test/matrix)

matrix: ## newer PostgreSQL, each in a Debian of its own below build (needs root): make matrix T=17
	@test/matrix $(T)

bench: private tools ## measure: every program of bench/, or one: make bench T=read
	@for b in $(if $(T),bench/$(T),$$(find bench -maxdepth 1 -type f -perm -u+x | sort)); do $$b || exit 1; done

setup: ## install what building and checking need (Debian)
	@test/setup build check

private: setup ## a private PostgreSQL in build/pg<major> with the extension installed
	$(AGAIN) -j$(shell nproc) all
	$(AGAIN) -C test/writer
	$(AGAIN) -C test/kcf_test
	@test/pg install

jars: ## Apache Kafka's jars, Prometheus' programs and packages of npm, for the tests
	@test/kafka jars 3.9.1 4.1.1 >/dev/null
	@test/monitoring >/dev/null
	@test/node >/dev/null

compdb: setup ## compile_commands.json, for editors
	@test/compdb

dist: ## the release as an archive for PGXN, from the last commit
	@mkdir -p build
	git archive --format=zip --prefix=$(EXTENSION)-$(DISTVERSION)/ -o build/$(EXTENSION)-$(DISTVERSION).zip HEAD

DISTVERSION = $(shell sed -n '/"provides"/,$$d; s/^ *"version": *"\(.*\)",/\1/p' META.json)

# --- programs of the tests -----------------------------------------------------------------------

TOOLS       = build/bin/mock_kafka build/bin/kafka_admin build/bin/producer build/bin/listener \
              build/bin/faults.so
TOOL_COMMON = test/line.c test/produce.c
TOOL_CFLAGS = -std=gnu11 -O2 -g -Wall -Wextra $(PG_CFLAGS_EXTRA)

tools: setup ## the mock broker and the clients that tests use, in build/bin
	$(AGAIN) $(TOOLS)
	$(AGAIN) -C test/kcf_test

build/bin/listener: test/listener.c
	@mkdir -p $(@D)
	$(CC) $(TOOL_CFLAGS) $(shell $(PKG_CONFIG) --cflags libpq) $< -o $@ $(shell $(PKG_CONFIG) --libs libpq)

build/bin/faults.so: test/faults.c
	@mkdir -p $(@D)
	$(CC) $(TOOL_CFLAGS) -shared -fPIC $< -o $@ -ldl

build/bin/%: test/%.c $(TOOL_COMMON) $(wildcard test/*.h)
	@mkdir -p $(@D)
	$(CC) $(TOOL_CFLAGS) $(shell $(PKG_CONFIG) --cflags rdkafka) $< $(TOOL_COMMON) -o $@ \
		$(shell $(PKG_CONFIG) --libs rdkafka)

endif
