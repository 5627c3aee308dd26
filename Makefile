EXTENSION  = kafka_cache_fdw
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" $(EXTENSION).control)
MODULE_big = $(EXTENSION)
OBJS       = $(EXTENSION).o $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
DATA       = $(wildcard sql/$(EXTENSION)--*.sql)

PKG_CONFIG ?= pkg-config
PG_CPPFLAGS = -I$(srcdir)/src -DKCF_VERSION='"$(EXTVERSION)"' $(shell $(PKG_CONFIG) --cflags rdkafka jansson)
PG_CFLAGS   = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers \
              -Wno-declaration-after-statement $(PG_CFLAGS_EXTRA)
SHLIB_LINK  = $(shell $(PKG_CONFIG) --libs rdkafka jansson)
with_llvm   = no

PG_CONFIG ?= pg_config
PGXS      := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
