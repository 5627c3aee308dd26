// PostGraphile in front of the schema api, for those who bring a token.
//
// What it needs to know stands in the environment:
//
//     PGHOST, PGUSER … the database, as psql takes it; the role is api_server
//     JWT_SECRET_FILE  the secret of tokens signed with HS256, 32 bytes or more
//     JWT_PUBLIC_FILE  the public key of tokens signed with RS256, PEM (one of the two is enough)
//     JWT_AUDIENCE     what the claim "aud" of a token must say (api)
//     API_ROLES        what its claim "role" may say (api_reader,api_writer)
//     HOST, PORT       where to listen (127.0.0.1, 5678)

import { createPublicKey, createSecretKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { jwtVerify } from "jose";
import { makePgService } from "postgraphile/adaptors/pg";
import { GraphQLError } from "postgraphile/graphql";
import { PostGraphileAmberPreset } from "postgraphile/presets/amber";

const { env } = process;
const audience = env.JWT_AUDIENCE ?? "api";
const roles = (env.API_ROLES ?? "api_reader,api_writer").split(",");

// ---- who asks ----

// Each algorithm has its own key: a public key is never taken for a secret.
const keys = {};
if (env.JWT_SECRET_FILE) keys.HS256 = createSecretKey(readFileSync(env.JWT_SECRET_FILE));
if (env.JWT_PUBLIC_FILE) keys.RS256 = createPublicKey(readFileSync(env.JWT_PUBLIC_FILE));
if (Object.keys(keys).length === 0) throw new Error("set JWT_SECRET_FILE, JWT_PUBLIC_FILE or both");
if (keys.HS256?.symmetricKeySize < 32) throw new Error("the secret is shorter than 32 bytes");

class Refused extends Error {
	constructor(statusCode, challenge, message) {
		super(message);
		Object.assign(this, { statusCode, challenge });
	}
}

async function claimsOf(authorization) {
	const token = /^Bearer +([\w.-]+)$/i.exec(authorization ?? "")?.[1];

	if (token === undefined) throw new Refused(401, "Bearer", "a bearer token is needed");
	const { payload } = await jwtVerify(token, ({ alg }) => keys[alg], {
		algorithms: Object.keys(keys), audience, requiredClaims: ["exp", "role"],
	}).catch(({ code }) => {
		const what = code === "ERR_JWT_EXPIRED" ? "the token has expired" : "the token is not valid";
		throw new Refused(401, 'Bearer error="invalid_token"', what);
	});
	if (!roles.includes(payload.role)) {
		throw new Refused(403, 'Bearer error="insufficient_scope"', "the token's role is not one of this server's");
	}
	return payload;
}

// Before anything else is looked at: whoever has no token does not even see the schema.
const TokenPlugin = {
	name: "TokenPlugin",
	grafserv: {
		middleware: {
			async processRequest(next, { requestDigest: { requestContext } }) {
				try {
					requestContext.claims = await claimsOf(requestContext.node.req.headers.authorization);
				} catch (error) {
					if (!(error instanceof Refused)) throw error;
					return {
						type: "json",
						statusCode: error.statusCode,
						headers: { "Content-Type": "application/json", "WWW-Authenticate": error.challenge },
						json: { errors: [{ message: error.message }] },
					};
				}
				return next();
			},
		},
	},
};

// ---- what is told of errors ----

// Those that speak of the request, by the class of their SQLSTATE; the rest goes to the server's log alone.
const TOLD = /^(22|23|40|42501|55000|57014|72|08|P0)/;

function maskError(error) {
	const code = error.originalError?.code;

	if (error.originalError == null) return error; // GraphQL's own
	if (typeof code === "string" && TOLD.test(code)) {
		return new GraphQLError(error.message, { nodes: error.nodes, path: error.path, extensions: { code } });
	}
	console.error(error.originalError);
	return new GraphQLError("something went wrong", { nodes: error.nodes, path: error.path });
}

export default {
	extends: [PostGraphileAmberPreset],
	plugins: [TokenPlugin],
	disablePlugins: ["NodePlugin"], // a row goes by its key
	pgServices: [makePgService({ schemas: ["api"] })],
	grafserv: {
		host: env.HOST ?? "127.0.0.1",
		port: Number(env.PORT ?? 5678),
		graphiql: false,
		maskError,
	},
	grafast: {
		// Each request runs as the role of its token, and its claims are what the views go by.
		context: ({ claims }) => ({
			pgSettings: { role: claims.role, "request.jwt.claims": JSON.stringify(claims) },
		}),
	},
};
