// Why a command could not do what it was asked: a sentence, the way out, and an exit code that scripts can tell apart.

import { redact } from './redact.ts';
import { sanitize } from './sanitize.ts';

/** Exit codes. 0: done, and all is well. */
export const EXIT = {
  /** Something is wrong with a cluster: a link is broken, a Secret was not refreshed. */
  unhealthy: 1,
  /** The command line was not understood. */
  usage: 2,
  /** Nobody is signed in to AWS, or the session has expired. */
  unauthenticated: 3,
  /** AWS or the API server does not allow it. */
  denied: 4,
  /** There is no such cluster, stack or context. */
  notFound: 5,
  /** Something stands in the way: the cluster is registered already, or is another one. */
  conflict: 6,
  /** No answer: network, DNS, TLS. */
  network: 7,
  /** Anything else; a defect, where it is not the other side's. */
  failed: 10,
  /** Ctrl-C: 128 + SIGINT. */
  interrupted: 130,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** A failure that was foreseen. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly exitCode: ExitCode;
  /** The way out: what to do, or a command. */
  readonly hint: string | undefined;

  constructor(exitCode: ExitCode, message: string, hint?: string, cause?: unknown) {
    // The one door to people's eyes, logs and terminals' histories.
    super(sanitize(redact(message)), { cause });
    this.exitCode = exitCode;
    this.hint = hint === undefined ? undefined : sanitize(redact(hint));
  }
}

/** What a signal is aborted with where somebody has pressed Ctrl-C. @param message what is left as it is, or goes on */
export class InterruptedError extends CliError {
  constructor(message = 'interrupted', hint?: string) {
    super(EXIT.interrupted, message, hint);
  }
}

const SIGN_IN = 'sign in again (aws sso login, aws login, …), or name another profile with --profile';

/** What AWS' errors mean. */
interface Meaning {
  readonly exitCode: ExitCode;
  readonly meaning: string;
  readonly hint: string;
  /** AWS' own words are left out: they quote what was sent. */
  readonly isQuoting?: true;
}

const EXPIRED: Meaning = {
  exitCode: EXIT.unauthenticated,
  meaning: 'the AWS session has expired',
  hint: SIGN_IN,
};
const NOT_ACCEPTED: Meaning = {
  exitCode: EXIT.unauthenticated,
  meaning: 'AWS does not accept these credentials',
  hint: SIGN_IN,
};

/** By the names of AWS' errors. */
const AWS_ERRORS: readonly (readonly [RegExp, Meaning])[] = [
  [
    /^(CredentialsProviderError|TokenProviderError|ProviderError)$/,
    {
      exitCode: EXIT.unauthenticated,
      meaning: 'nobody is signed in to AWS',
      hint: 'sign in (aws sso login, aws login, …), or name a profile with --profile',
    },
  ],
  [/^(ExpiredToken|TokenRefreshRequired|RequestExpired)/, EXPIRED],
  // "The Canonical String for this request should have been …", with the session's token in it.
  [/^(InvalidSignature|SignatureDoesNotMatch|IncompleteSignature)/, { ...NOT_ACCEPTED, isQuoting: true }],
  [
    /^(InvalidClientTokenId|UnrecognizedClient|InvalidAccessKeyId|AuthFailure|InvalidToken|MissingAuthenticationToken)/,
    NOT_ACCEPTED,
  ],
  [
    /^(AccessDenied|UnauthorizedOperation|NotAuthorized)/,
    {
      exitCode: EXIT.denied,
      meaning: 'AWS does not allow it',
      hint: 'docs/command-line.md has the policy that each command needs',
    },
  ],
  [
    /^(Throttling|TooManyRequests|RequestLimitExceeded)/,
    { exitCode: EXIT.failed, meaning: 'AWS has too much to do', hint: 'try again in a minute' },
  ],
];

const NETWORK_HINT = 'is there a network, a VPN, a proxy (HTTPS_PROXY)?';
const NETWORK_CODES =
  /^(E(CONN|HOST|NET|AI_|NOTFOUND|TIMEDOUT|PIPE|PROTO)|ERR_(TLS|SSL|SOCKET|PROXY)|CERT_|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED|UND_ERR)/;
const MAX_MESSAGE_LENGTH = 600;

/**
 * Any failure as one that was foreseen, as far as it can be told.
 *
 * @param what was being done, such as `reading the stack`; undefined: the failure says so itself
 */
export function toCliError(error: unknown, what?: string): CliError {
  if (error instanceof CliError) return error;
  const { name = '', message = String(error) } = error as Partial<Error>;
  const begin = what === undefined ? '' : `${what}: `;
  const said = line(message) || name;
  const fail = (exitCode: ExitCode, words: string, hint?: string) =>
    new CliError(exitCode, `${begin}${words}`, hint, error);
  // The SDK's own word where neither option, environment nor profile names one.
  if (/region is missing/i.test(message))
    return new CliError(EXIT.usage, 'no AWS region', 'give --region, or set AWS_REGION', error);
  for (const [pattern, known] of AWS_ERRORS) {
    if (!chain(error).some((one) => pattern.test(one.name))) continue;
    const { exitCode, meaning, hint, isQuoting } =
      known.exitCode === EXIT.unauthenticated && /\bexpired\b/i.test(message) ? EXPIRED : known;
    return fail(exitCode, isQuoting ? meaning : `${meaning}: ${said}`, hint);
  }
  const code = networkCode(error);
  const names = chain(error).map((one) => one.name);
  if (
    code === undefined &&
    (/Deserialization error/.test(message) ||
      names.some((type) => /^(SyntaxError|ZodError|\$ZodError)$/.test(type)))
  )
    // A captive portal, or a proxy's page, whose words may be anything.
    return fail(EXIT.network, 'what answers is something else', NETWORK_HINT);
  if (code !== undefined || names.some((type) => type === 'TimeoutError' || type === 'AbortError')) {
    // Of the SDK: "@smithy/node-http-handler - [ERROR] a request has exceeded the configured 10000 ms requestTimeout."
    const [, ms] = /exceeded the configured (\d+) ms|within (\d+) ms/.exec(message) ?? [];
    if (ms !== undefined) return fail(EXIT.network, `no answer within ${Number(ms) / 1000} s`, NETWORK_HINT);
    const named = code === undefined || said.includes(code) ? '' : ` (${code})`;
    return fail(EXIT.network, `no answer: ${said}${named}`, NETWORK_HINT);
  }
  return fail(
    EXIT.failed,
    said,
    chain(error).some(hasAnswered)
      ? 'AWS says so: try again, and look at health.aws.amazon.com if it stays'
      : 'that was not foreseen: please report it, with the command',
  );
}

/** A failure and its causes; of a failure for each of several addresses, the first. */
function chain(error: unknown): Error[] {
  const all: Error[] = [];
  for (let at = error; at instanceof Error && all.length < 5; at = at.cause) {
    const one: unknown = at instanceof AggregateError ? at.errors[0] : at;
    if (one instanceof Error) all.push(one);
  }
  return all;
}

/** Whether a failure is AWS' own word: the SDK notes its attempts at what never got there, too. */
function hasAnswered(error: Error): boolean {
  const { $metadata } = error as { $metadata?: { httpStatusCode?: number } };
  return $metadata?.httpStatusCode !== undefined;
}

/** The network's word for a failure, be it the failure's own or its cause's. */
function networkCode(error: unknown): string | undefined {
  const codes = chain(error).map((one) => (one as NodeJS.ErrnoException).code);
  return codes.find((code) => typeof code === 'string' && NETWORK_CODES.test(code));
}

/** In one line, and not for ever: others' words may be anything. */
export function line(text: string): string {
  const one = redact(text)
    .replaceAll(/[\p{C}\p{Zl}\p{Zp}\s]+/gu, ' ')
    .trim();
  return one.length > MAX_MESSAGE_LENGTH ? `${one.slice(0, MAX_MESSAGE_LENGTH)}…` : one;
}
