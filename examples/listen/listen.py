#!/usr/bin/env python3
"""Follows a cached table, and misses nothing, whoever is restarted meanwhile.

    examples/listen/listen.py TABLE CHANNEL KEY_COLUMN

The connection is that of libpq: PGHOST, PGDATABASE and so on. Each change is a line of JSON on
standard output: {"key": "...", "row": {...}}, and "row": null where the row is gone. Who applies
these lines in their order has the table. Needs psycopg2 (python3-psycopg2 of Debian).

How: listen, then ask what has changed since the position that is known, then read what is announced.
A position is only advanced when everything up to it has been read.
"""

import json
import select
import sys
import time

import psycopg2
from psycopg2 import sql

POSITION_TOO_OLD = "72000"
HEARTBEAT = 10  # seconds; a connection that is silently dead is noticed by asking


class Follower:
    def __init__(self, table, channel, key, emit):
        self.table, self.channel, self.key, self.emit = table, channel, key, emit
        self.rows = {}  # what was told to whom we tell: key to row
        self.since = None  # partition to the offset of the last record known; None: nothing is known

    def query(self, text, *values):
        names = {
            "table": sql.SQL(self.table),
            "key": sql.Identifier(self.key),
            "type": sql.SQL(self.key_type),
        }
        with self.connection.cursor() as cursor:
            cursor.execute(sql.SQL(text).format(**names), values)
            return cursor.fetchall()

    def value(self, text, *values):
        return self.query(text, *values)[0][0]

    def tell(self, key, row):
        if row is None and key not in self.rows:
            return
        if row is None:
            del self.rows[key]
        else:
            self.rows[key] = row
        self.emit({"key": key, "row": row})

    # ---- what is known --------------------------------------------------------------------------

    def position(self):
        self.value("SELECT kafka_cache.wait_ready(%s)", self.table)
        return self.value('SELECT kafka_cache."position"(%s)', self.table)

    def read_all(self):
        """From nothing, or from a position that is too old: whatever is not there any more is gone."""
        position = self.position()  # before the rows: what comes in between is read twice, not never
        rows = dict(self.query("SELECT t.{key}::text, to_jsonb(t) FROM {table} t"))
        for key in [key for key in self.rows if key not in rows]:
            self.tell(key, None)
        for key, row in rows.items():
            if self.rows.get(key) != row:
                self.tell(key, row)
        self.since = position

    def catch_up(self):
        """Everything since the position that is known."""
        if self.since is None:
            return self.read_all()
        position = self.position()
        # Of a partition that the topic did not have then, everything is new.
        since = {**{partition: -1 for partition in position}, **self.since}
        try:
            changes = self.query(
                """SELECT c.key, to_jsonb(t) FROM kafka_cache.changes(%s, %s) c
                   LEFT JOIN {table} t ON t.{key} = c.key::{type}""",
                self.table,
                json.dumps(since),
            )
        except psycopg2.Error as error:
            if error.pgcode != POSITION_TOO_OLD:
                raise
            return self.read_all()
        for key, row in changes:
            self.tell(key, row)
        self.since = position

    def read_announced(self, payloads):
        """The rows that notifications name."""
        keys = set()
        offsets = {}
        for payload in payloads:
            if payload["updates"] is None:
                return self.catch_up()
            keys.update(payload["updates"])
            for partition, offset in payload["offsets"].items():
                offsets[partition] = max(offset, offsets.get(partition, -1))
        for key, row in self.query(
            """SELECT k.key, to_jsonb(t) FROM unnest(%s::text[]) k (key)
               LEFT JOIN {table} t ON t.{key} = k.key::{type}""",
            list(keys),
        ):
            self.tell(key, row)
        for partition, offset in offsets.items():
            self.since[partition] = max(offset, self.since.get(partition, -1))

    # ---- the connection -------------------------------------------------------------------------

    def connect(self):
        self.connection = psycopg2.connect("", connect_timeout=10)
        self.connection.autocommit = True  # in a transaction nothing is heard
        self.key_type = "text"
        types = self.query(
            """SELECT format_type(atttypid, NULL) FROM pg_attribute
               WHERE attrelid = %s::regclass AND attname = %s""",
            self.table,
            self.key,
        )
        if not types:
            sys.exit(f"{self.table} has no column {self.key}")
        self.key_type = types[0][0]
        with self.connection.cursor() as cursor:
            cursor.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self.channel)))

    def follow(self):
        self.connect()
        self.catch_up()  # after LISTEN: what comes from now on is announced
        while True:
            # Some may have come with the answer to a query.
            payloads = [json.loads(notify.payload) for notify in self.connection.notifies]
            self.connection.notifies.clear()
            if payloads:
                self.read_announced(payloads)
                continue
            readable, _, _ = select.select([self.connection], [], [], HEARTBEAT)
            if not readable:
                self.value("SELECT 1")
            self.connection.poll()

    def run(self):
        delay = 0.1
        while True:
            started = time.monotonic()
            try:
                self.follow()
            except (psycopg2.Error, OSError) as error:
                print(f"{str(error).strip() or type(error).__name__}; again", file=sys.stderr)
            if getattr(self, "connection", None):
                self.connection.close()
            delay = 0.1 if time.monotonic() - started > 10 else min(delay * 2, 5)
            time.sleep(delay)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    Follower(*sys.argv[1:], lambda change: print(json.dumps(change), flush=True)).run()


if __name__ == "__main__":
    main()
