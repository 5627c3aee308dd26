#!/usr/bin/env node
// Prints a token, for trying things out: an identity provider is what issues them otherwise.
//
//     node token.mjs KEY_FILE CLAIMS [LIFETIME]
//
// A private key (PEM) signs with RS256, anything else is a secret and signs with HS256.

import { createPrivateKey, createSecretKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { SignJWT } from "jose";

if (process.argv.length < 4 || process.argv.length > 5) {
	console.error("usage: token.mjs KEY_FILE CLAIMS [LIFETIME]");
	process.exit(1);
}
const [file, claims, lifetime = "10 minutes"] = process.argv.slice(2);
const bytes = readFileSync(file);
const [alg, key] = bytes.includes("PRIVATE KEY") ? ["RS256", createPrivateKey(bytes)] : ["HS256", createSecretKey(bytes)];

console.log(await new SignJWT({ aud: "api", ...JSON.parse(claims) })
	.setProtectedHeader({ alg }).setIssuedAt().setExpirationTime(lifetime).sign(key));
