#!/usr/bin/env node
// Follows a cached table, and misses nothing, whoever is restarted meanwhile.
//
//     examples/listen/listen.mjs TABLE CHANNEL KEY_COLUMN
//
// The connection is that of libpq's variables: PGHOST, PGDATABASE and so on. Each change is a line of JSON on standard
// output: {"key": "...", "row": {...}}, and "row": null where the row is gone. Who applies these lines in their order has
// the table. Needs the package pg (npm install, in this folder).
//
// How: listen, then ask what has changed since the position that is known, then read what is announced. A position is
// only advanced when everything up to it has been read.

import pg from "pg";

const POSITION_TOO_OLD = "72000";
const HEARTBEAT = 10000; // milliseconds; a connection that is silently dead is noticed by asking

class Follower {
	rows = new Map(); // what was told to whom we tell: key to row, as JSON
	since = null; // partition to the offset of the last record known; null: nothing is known

	constructor(table, channel, key, emit) {
		Object.assign(this, { table, channel, key: pg.escapeIdentifier(key), keyName: key, emit });
	}

	async value(text, ...values) {
		const { rows } = await this.client.query({ text, values, rowMode: "array" });
		return rows[0]?.[0];
	}

	tell(key, row) {
		if (row === null && !this.rows.has(key)) return;
		if (row === null) this.rows.delete(key);
		else this.rows.set(key, JSON.stringify(row));
		this.emit({ key, row });
	}

	// ---- what is known ----

	async position() {
		await this.value("SELECT kafka_cache.wait_ready($1)", this.table);
		return this.value('SELECT kafka_cache."position"($1)', this.table);
	}

	// From nothing, or from a position that is too old: whatever is not there any more is gone.
	async readAll() {
		const position = await this.position(); // before the rows: what comes in between is read twice, not never
		const { rows } = await this.client.query(
			`SELECT t.${this.key}::text AS key, to_jsonb(t) AS row FROM ${this.table} t`);
		const there = new Set(rows.map(({ key }) => key));

		for (const key of [...this.rows.keys()]) if (!there.has(key)) this.tell(key, null);
		for (const { key, row } of rows) if (this.rows.get(key) !== JSON.stringify(row)) this.tell(key, row);
		this.since = position;
	}

	// Everything since the position that is known.
	async catchUp() {
		if (this.since === null) return this.readAll();
		const position = await this.position();
		// Of a partition that the topic did not have then, everything is new.
		const since = { ...Object.fromEntries(Object.keys(position).map((p) => [p, -1])), ...this.since };
		let changes;

		try {
			changes = await this.client.query(
				`SELECT c.key, to_jsonb(t) AS row FROM kafka_cache.changes($1, $2) c
				 LEFT JOIN ${this.table} t ON t.${this.key} = c.key::${this.keyType}`, [this.table, since]);
		} catch (error) {
			if (error.code !== POSITION_TOO_OLD) throw error;
			return this.readAll();
		}
		for (const { key, row } of changes.rows) this.tell(key, row);
		this.since = position;
	}

	// The rows that notifications name.
	async readAnnounced(payloads) {
		const keys = new Set();
		const offsets = {};

		for (const { updates, offsets: ends } of payloads) {
			if (updates === null) return this.catchUp();
			Object.keys(updates).forEach((key) => keys.add(key));
			for (const [p, offset] of Object.entries(ends)) offsets[p] = Math.max(offset, offsets[p] ?? -1);
		}
		const { rows } = await this.client.query(
			`SELECT k.key, to_jsonb(t) AS row FROM unnest($1::text[]) k (key)
			 LEFT JOIN ${this.table} t ON t.${this.key} = k.key::${this.keyType}`, [[...keys]]);

		for (const { key, row } of rows) this.tell(key, row);
		for (const [p, offset] of Object.entries(offsets)) this.since[p] = Math.max(offset, this.since[p] ?? -1);
	}

	// ---- the connection ----

	async follow() {
		const payloads = [];
		let wake = () => {};
		let failure = null;

		this.client = new pg.Client({ connectionTimeoutMillis: 10000, query_timeout: 120000, keepAlive: true });
		this.client.on("error", (error) => { failure = error; wake(); });
		this.client.on("end", () => { failure ??= new Error("the connection is gone"); wake(); });
		this.client.on("notification", ({ payload }) => { payloads.push(JSON.parse(payload)); wake(); });
		await this.client.connect();
		this.keyType = await this.value(
			`SELECT format_type(atttypid, NULL) FROM pg_attribute
			 WHERE attrelid = $1::regclass AND attname = $2`, this.table, this.keyName);
		if (this.keyType === undefined) {
			console.error(`${this.table} has no column ${this.keyName}`);
			process.exit(1);
		}
		await this.client.query(`LISTEN ${pg.escapeIdentifier(this.channel)}`);
		await this.catchUp(); // after LISTEN: what comes from now on is announced
		for (;;) {
			if (failure) throw failure;
			if (payloads.length > 0) {
				await this.readAnnounced(payloads.splice(0));
				continue;
			}
			const heartbeat = await new Promise((resolve) => {
				const timer = setTimeout(resolve, HEARTBEAT, true);
				wake = () => { clearTimeout(timer); resolve(false); };
			});
			if (heartbeat) await this.value("SELECT 1");
		}
	}

	async run() {
		let delay = 100;

		for (;;) {
			const started = Date.now();

			try {
				await this.follow();
			} catch (error) {
				console.error(`${error.message || error.code}; again`);
			}
			this.client.end().catch(() => {});
			delay = Date.now() - started > 10000 ? 100 : Math.min(delay * 2, 5000);
			await new Promise((resolve) => setTimeout(resolve, delay));
		}
	}
}

if (process.argv.length !== 5) {
	console.error("usage: listen.mjs TABLE CHANNEL KEY_COLUMN");
	process.exit(1);
}
await new Follower(...process.argv.slice(2), (change) => process.stdout.write(JSON.stringify(change) + "\n")).run();
