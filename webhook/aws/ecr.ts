// Calls ECR and STS with the AWS SDK, to get tokens for any principal. The SDK's default chain finds and renews the
// webhook's own credentials (environment, web identity, EKS Pod Identity, instance profile).

import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { ECRClient, GetAuthorizationTokenCommand } from '@aws-sdk/client-ecr';
import {
  ECRPUBLICClient,
  GetAuthorizationTokenCommand as GetPublicAuthorizationTokenCommand,
} from '@aws-sdk/client-ecr-public';
import { fromNodeProviderChain, fromTemporaryCredentials } from '@aws-sdk/credential-providers';
import pRetry from 'p-retry';
import type { TokenFailure } from '../../contract/denials.ts';
import { requestLimits } from '../../lib/aws/request-limits.ts';
import type { FetchToken, Token } from './ecr-tokens.ts';
import type { TokenSource } from './registries.ts';
import { TokenError, timedOut } from './token-error.ts';

/** The SDK's type, whose own package is no dependency of this project. */
type CredentialProvider = ECRClient['config']['credentials'];

/** The result of one attempt, as the metric counts it. */
export const ECR_RESULTS = ['ok', 'throttled', 'denied', 'unavailable', 'no-identity', 'error'] as const;
export type EcrResult = (typeof ECR_RESULTS)[number];

export interface AwsSettings {
  /** The region of the STS endpoint. */
  readonly region: string;
  /** The time limit for all attempts to get one token, in milliseconds. */
  readonly withinMs: number;
  /** The role that the webhook assumes for every call, with the credentials of the default chain. */
  readonly assumeRole?: TokenSource['role'];
  /** Called after each attempt. */
  readonly onCall?: (source: TokenSource, result: EcrResult) => void;
}

/** The role session name, visible in CloudTrail. */
const SESSION_NAME = 'ecr-anywhere-webhook';

/**
 * A throttled attempt is repeated once, as each call counts against a quota, between these fractions of the time limit.
 * Repetitions are spaced a little wider than ECR's limit (20 calls a second for an account and region), so that calls
 * that were throttled together do not return together. If there are too many for that, they return at random times.
 */
export const THROTTLED_FROM = 0.15;
const THROTTLED_TO = 0.88;
const SPACING_MS = 1000 / 18;

/** The webhook has no credentials to ask ECR with. `cause` is the error of the SDK or of STS. */
class IdentityError extends Error {
  /** The role that could not be assumed; undefined if the default chain found no credentials. */
  readonly roleArn: string | undefined;

  constructor(message: string, cause: unknown, roleArn: string | undefined) {
    super(message, { cause });
    this.roleArn = roleArn;
  }
}

/** The number of connections, and so of sources that are asked at the same time. */
const SOCKETS = 300;

/** Makes the function that gets tokens from ECR. */
export function fetchFromEcr(settings: AwsSettings): FetchToken {
  const { withinMs } = settings;
  const clients = new Map<string, (signal: AbortSignal) => Promise<Token>>();
  // A custom agent uses HTTPS_PROXY and NO_PROXY only with this option.
  const agent = { keepAlive: true, maxSockets: SOCKETS, proxyEnv: process.env };
  const [httpAgent, httpsAgent] = [new HttpAgent(agent), new HttpsAgent(agent)];
  // All clients share the connections, and credentials that are cached until they expire.
  const { requestHandler } = new ECRClient({
    region: settings.region,
    requestHandler: {
      // Leaves time for a second attempt.
      ...requestLimits(withinMs / 2),
      httpAgent,
      httpsAgent,
    },
  }).config;
  const cached = (credentials: CredentialProvider): CredentialProvider =>
    new ECRClient({ region: settings.region, credentials, requestHandler }).config.credentials;
  const assuming = (role: NonNullable<TokenSource['role']>, from: CredentialProvider): CredentialProvider =>
    describingFailures(
      role.arn,
      fromTemporaryCredentials({
        masterCredentials: from,
        params: {
          RoleArn: role.arn,
          RoleSessionName: SESSION_NAME,
          ...(role.externalId !== undefined && { ExternalId: role.externalId }),
        },
        clientConfig: { region: settings.region, maxAttempts: 1, requestHandler },
      }),
    );
  const fromDefaultChain = describingFailures(
    undefined,
    fromNodeProviderChain({ clientConfig: { region: settings.region, requestHandler } }),
  );
  const own = cached(
    settings.assumeRole ? assuming(settings.assumeRole, fromDefaultChain) : fromDefaultChain,
  );

  const clientFor = (source: TokenSource) => {
    const { service, region, role, fips = false, dualStack = false } = source;
    const key = JSON.stringify([service, region, role, fips, dualStack]);
    const existing = clients.get(key);
    if (existing) return existing;
    const config = {
      region,
      credentials: role ? assuming(role, own) : own,
      // The retries below respect the time limit; the SDK's do not.
      maxAttempts: 1,
      requestHandler,
      useFipsEndpoint: fips,
      useDualstackEndpoint: dualStack,
    };
    const ask = service === 'ecr' ? askEcr(new ECRClient(config)) : askEcrPublic(new ECRPUBLICClient(config));
    clients.set(key, ask);
    return ask;
  };

  /** By region: the time of the last repetition that is planned. */
  const planned = new Map<string, number>();
  /** Milliseconds to wait before a throttled attempt is repeated. */
  const waitFor = (region: string, startedAt: number): number => {
    const now = performance.now();
    // Not at once: first attempts of other sources still use up the limit.
    const [from, to] = [now + withinMs * THROTTLED_FROM, startedAt + withinMs * THROTTLED_TO];
    const next = Math.max(from, (planned.get(region) ?? 0) + SPACING_MS);
    if (next > to) return Math.max(0, from + Math.random() * (to - from) - now);
    planned.set(region, next);
    return next - now;
  };

  return async (source, signal) => {
    const ask = clientFor(source);
    const startedAt = performance.now();
    // The SDK's credential providers ignore the signal.
    const timeUp = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
    timeUp.catch(() => {});
    let last: TokenError | undefined;
    let throttled = 0;
    const principal = source.role?.arn ?? settings.assumeRole?.arn;
    const attempt = async () => {
      try {
        const token = await Promise.race([ask(signal), timeUp]);
        settings.onCall?.(source, 'ok');
        return token;
      } catch (error) {
        if (!signal.aborted) last = failureOf(error, principal);
        settings.onCall?.(source, signal.aborted ? 'unavailable' : resultOf(error));
        throw error;
      }
    };
    return pRetry(attempt, {
      retries: 2,
      minTimeout: 100,
      randomize: true,
      signal,
      shouldRetry: async ({ error }) => {
        const result = resultOf(error);
        if (result !== 'throttled') return result === 'unavailable';
        throttled += 1;
        if (throttled > 1) return false;
        await sleep(waitFor(source.region, startedAt), undefined, { signal });
        return true;
      },
    }).catch((error: unknown) => {
      throw signal.aborted ? timedOut(withinMs, last) : failureOf(error, principal);
    });
  };
}

function askEcr(client: ECRClient) {
  return async (abortSignal: AbortSignal): Promise<Token> => {
    const answer = await client.send(new GetAuthorizationTokenCommand({}), { abortSignal });
    // ECR returns one token: it opens every registry that its principal may read.
    const { proxyEndpoint, ...data } = answer.authorizationData?.[0] ?? {};
    const host = URL.parse(proxyEndpoint ?? '')?.host;
    if (!host) throw unusable();
    return { host, ...tokenOf(data) };
  };
}

function askEcrPublic(client: ECRPUBLICClient) {
  return async (abortSignal: AbortSignal): Promise<Token> => {
    const answer = await client.send(new GetPublicAuthorizationTokenCommand({}), { abortSignal });
    return tokenOf(answer.authorizationData ?? {});
  };
}

function tokenOf(data: {
  authorizationToken?: string | undefined;
  expiresAt?: Date | undefined;
}): Omit<Token, 'host'> {
  const [username, ...rest] = Buffer.from(data.authorizationToken ?? '', 'base64')
    .toString()
    .split(':');
  const password = rest.join(':');
  if (!username || !password || !data.expiresAt) throw unusable();
  return { username, password, expiresAt: data.expiresAt.getTime() };
}

function unusable(): Error {
  return new TokenError('ecr-error', 'ECR answered without a usable token');
}

/** A provider whose errors are IdentityErrors. @param roleArn the role that it assumes, if it does */
function describingFailures(roleArn: string | undefined, provider: CredentialProvider): CredentialProvider {
  const what =
    roleArn === undefined ? 'the webhook has no AWS identity' : `the role ${roleArn} cannot be assumed`;
  return async (properties) => {
    try {
      return await provider(properties);
    } catch (error) {
      // From the provider of the credentials that this one assumes the role with.
      if (error instanceof IdentityError) throw error;
      throw new IdentityError(`${what}: ${describe(error)}`, error, roleArn);
    }
  };
}

function describe(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

const THROTTLED = /throttl|toomanyrequests|requestlimitexceeded|slowdown/i;
/** The SDK renews credentials before they expire; if a clock is wrong, the second attempt has new ones. */
const EXPIRED = /^(Expired|RequestExpired)/;
/** AWS does not accept the credentials themselves, whatever they would be allowed to do. */
const NOT_ACCEPTED =
  /^(Expired|RequestExpired|UnrecognizedClient|InvalidClientTokenId|InvalidIdentityToken|InvalidAccessKeyId|InvalidSignature|SignatureDoesNotMatch|IncompleteSignature|MissingAuthenticationToken)/;

/** What AWS answered; of an IdentityError, to the request for credentials. */
function answerOf(error: unknown): { name: string; status: number | undefined; cause: unknown } {
  const cause = error instanceof IdentityError ? error.cause : error;
  const { name = '', $metadata } = cause as { name?: string; $metadata?: { httpStatusCode?: number } };
  return { name, status: $metadata?.httpStatusCode, cause };
}

function resultOf(error: unknown): EcrResult {
  const { name, status, cause } = answerOf(error);
  if (THROTTLED.test(name) || status === 429) return 'throttled';
  if (status === undefined ? isNetwork(cause) : status >= 500) return 'unavailable';
  if (EXPIRED.test(name)) return 'unavailable';
  if (error instanceof IdentityError) return 'no-identity';
  return status === undefined ? 'error' : 'denied';
}

function reasonOf(error: unknown): TokenFailure {
  const { name, status } = answerOf(error);
  if (NOT_ACCEPTED.test(name)) return 'aws-no-identity';
  switch (resultOf(error)) {
    case 'throttled':
      return 'ecr-throttled';
    case 'unavailable':
      return 'ecr-unavailable';
    case 'no-identity':
      return (error as IdentityError).roleArn === undefined ? 'aws-no-identity' : 'aws-role-denied';
    case 'denied':
      return status === 401 || status === 403 || /accessdenied|unauthorized|notauthorized/i.test(name)
        ? 'ecr-denied'
        : 'ecr-error';
    default:
      return 'ecr-error';
  }
}

/** @param principal the ARN of the role that ECR is asked as, if the webhook knows it */
function failureOf(error: unknown, principal: string | undefined): TokenError {
  if (error instanceof TokenError) return error;
  const reason = reasonOf(error);
  const message = error instanceof IdentityError ? error.message : `ECR refused: ${describe(error)}`;
  const denied = {
    'aws-role-denied': error instanceof IdentityError ? error.roleArn : undefined,
    'ecr-denied': principal ?? principalIn(message),
  };
  return new TokenError(reason, message, {
    principal: (denied as Partial<Record<TokenFailure, string>>)[reason],
    cause: error,
  });
}

/** AWS names the principal that it denies in its message only: `User: ARN is not authorized to perform: …`. */
function principalIn(message: string): string | undefined {
  return /\bUser: (arn:\S+)/.exec(message)?.[1];
}

function isNetwork(error: unknown): boolean {
  const { name, code } = error as NodeJS.ErrnoException;
  return name === 'TimeoutError' || code !== undefined;
}
