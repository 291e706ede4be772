// Why a command failed: a code and an exit code for programs, a sentence and a way out for people.

import { redact } from './redact.ts';
import { sanitize } from './sanitize.ts';

/** Exit codes. 0: the command succeeded, and no cluster has a problem. */
export const EXIT = {
  /** A cluster has a problem: a check failed, or a Secret was not refreshed. */
  unhealthy: 1,
  /** The command line is invalid. */
  usage: 2,
  /** No valid credentials for AWS or the cluster. */
  unauthenticated: 3,
  /** AWS or the API server denied the request. */
  denied: 4,
  /** The cluster, stack, context or chart does not exist. */
  notFound: 5,
  /** The state of the cluster or of its registration does not permit the command. */
  conflict: 6,
  /** Network, DNS, TLS, or an unexpected response. */
  network: 7,
  /** Any other failure. */
  failed: 10,
  /** A signal ended the command: 128 + SIGINT. */
  interrupted: 130,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

interface Reason {
  readonly exitCode: ExitCode;
  /** A sentence for docs/command-line.md. */
  readonly meaning: string;
}

/** The codes of one exit code, each with its meaning. */
function reasons<Code extends string>(
  exitCode: ExitCode,
  meanings: Readonly<Record<Code, string>>,
): Readonly<Record<Code, Reason>> {
  const entries = Object.entries<string>(meanings).map(([code, meaning]) => [code, { exitCode, meaning }]);
  return Object.fromEntries(entries);
}

/** The codes of errors, which programs branch on (docs/command-line.md). A code keeps its name and its meaning. */
export const ERRORS = {
  ...reasons(EXIT.unhealthy, {
    'registration-not-verified': 'The refresher cannot use what `register` stored, so no run uses it.',
    'token-not-revoked': 'The registered token could not be revoked, so the cluster stays registered.',
  }),
  ...reasons(EXIT.usage, {
    usage: 'A command, an option or the value of an option is invalid.',
    'no-region': 'No AWS region is configured.',
    'ca-bundle-unreadable':
      'The file that `AWS_CA_BUNDLE` or `ca_bundle` names cannot be read, or holds no certificate.',
    'kubeconfig-unreadable': 'The kubeconfig cannot be read, or is invalid.',
    'credential-unreadable':
      'The kubeconfig that `--credential` names cannot be read, or holds no credential.',
    'issuer-unknown': "The account's token issuer could not be determined, and `--issuer` is missing.",
    'issuer-mismatch': "`--issuer` is not the account's token issuer.",
    'server-not-verifiable':
      'The context gives no certificate authority by which the refresher could verify the API server.',
    'eks-cluster-unknown':
      'The context does not say which EKS cluster it belongs to, and the name is missing.',
    'token-lifetime-invalid':
      'The requested lifetime of the token is too short for Kubernetes, or longer than the chart allows.',
  }),
  ...reasons(EXIT.unauthenticated, {
    'no-aws-credentials': 'No AWS credentials found.',
    'aws-session-expired': 'The AWS session has expired.',
    'aws-credentials-rejected': 'AWS rejected the credentials.',
    'kubernetes-unauthorized': "The API server rejected the context's credential (HTTP 401).",
    'exec-plugin-failed': 'The exec plugin of the kubeconfig returned no credential.',
  }),
  ...reasons(EXIT.denied, {
    'aws-access-denied': 'AWS denied the request.',
    'kubernetes-forbidden': 'The API server denied the request (HTTP 403).',
    'credential-expired': 'The credential of `--credential` has expired.',
    'credential-rejected': 'The API server rejected the credential of `--credential`.',
    'token-rejected':
      'The server rejected a token that the cluster had just created. It may be a proxy with users of its own.',
    'identity-not-restricted':
      'The write policy does not restrict the identity, so `register` does not store its credential.',
    'eks-access-policies':
      'The access entry of the EKS cluster has access policies, which the write policy does not restrict.',
  }),
  ...reasons(EXIT.notFound, {
    'stack-not-found': 'There is no such stack, or it has no refresher.',
    'function-not-found': 'There is no such Lambda function.',
    'not-registered': 'There is no registered cluster of that name.',
    'no-kubeconfig': 'There is no kubeconfig.',
    'no-context': 'The kubeconfig has no such context, or no current context.',
    'chart-not-installed': 'The chart is not installed in the cluster.',
    'chart-incomplete': "An object of the chart's release is missing.",
    'eks-cluster-not-found': 'There is no such EKS cluster in the region.',
  }),
  ...reasons(EXIT.conflict, {
    'already-registered': 'The name is already registered.',
    'registration-incomplete': '`register` was interrupted or failed, so no run uses the registration.',
    'duplicate-registration': 'The cluster is already registered under another name.',
    'name-unavailable':
      'A registration of that name was deleted, and Secrets Manager still reserves the name.',
    'different-cluster': 'The registration, or the address, belongs to a different cluster than the context.',
    'not-a-cluster': 'The name is that of a discovery target, not of a cluster.',
    'found-by-tag': 'The refresher finds the cluster by its EKS tag, so it is not registered by name.',
    'write-policy-not-enforced': 'The write policy for the refresher is incomplete, or does not deny.',
    'eks-cluster-not-ready': 'The EKS cluster has no endpoint yet.',
    'eks-endpoint-private': 'The EKS cluster has only a private endpoint, which the refresher cannot reach.',
    'eks-access-entries-disabled': 'The EKS cluster has access entries disabled.',
  }),
  ...reasons(EXIT.network, {
    network: 'The request got no response: network, DNS, TLS, proxy or time limit.',
    'unexpected-response':
      'The response is not one of AWS or of an API server. A proxy or captive portal may have sent it.',
  }),
  ...reasons(EXIT.failed, {
    'function-failed': 'The Lambda function failed.',
    'function-timeout': 'The Lambda function exceeded its time limit.',
    'function-too-old': 'The deployed function and this version of the CLI do not understand each other.',
    'function-too-new': 'The same, and the function is the newer one.',
    'aws-throttled': 'AWS is throttling requests.',
    'aws-error': 'AWS answered with another error.',
    'kubernetes-error': 'The API server answered with another error.',
    'kubeconfig-unsupported': 'The refresher would not accept the kubeconfig that `register` would store.',
    bug: 'The command failed unexpectedly. Please report it.',
  }),
  ...reasons(EXIT.interrupted, {
    interrupted: 'A signal ended the command.',
  }),
};

export type ErrorCode = keyof typeof ERRORS;

/** A failure that a command expects. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly code: ErrorCode;
  /** What to do: a sentence, or a command. */
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, hint?: string, cause?: unknown) {
    // Every message that reaches a terminal, a log or JSON passes through here.
    super(sanitize(redact(message)), { cause });
    this.code = code;
    this.hint = hint === undefined ? undefined : sanitize(redact(hint));
  }

  get exitCode(): ExitCode {
    return ERRORS[this.code].exitCode;
  }
}

/** The reason of the signal that SIGINT, SIGTERM and SIGHUP abort. @param message what stays, or continues in AWS */
export class InterruptedError extends CliError {
  constructor(message = 'The command was interrupted.', hint?: string) {
    super('interrupted', message, hint);
  }
}

/** An error as `--output json` prints it on standard error. */
export function errorJson({ code, message, hint, exitCode }: CliError): string {
  return JSON.stringify({ error: { code, message, ...(hint !== undefined && { hint }), exitCode } });
}

/** The same as text: the message, then the hint. */
export function errorText({ message, hint }: CliError): string {
  return `ecr-anywhere: ${message}${hint === undefined ? '' : `\n  → ${hint}`}`;
}

const SIGN_IN = 'Sign in again (for example: aws sso login), or name another profile with --profile.';

type AwsErrorCode = Exclude<Extract<ErrorCode, `aws-${string}`>, 'aws-error'> | 'no-aws-credentials';

/** By the names of AWS' errors. */
const AWS_ERRORS: readonly (readonly [RegExp, AwsErrorCode])[] = [
  [/^(CredentialsProviderError|TokenProviderError|ProviderError)$/, 'no-aws-credentials'],
  [/^(ExpiredToken|TokenRefreshRequired|RequestExpired)/, 'aws-session-expired'],
  [
    /^(InvalidSignature|SignatureDoesNotMatch|IncompleteSignature|InvalidClientTokenId|UnrecognizedClient|InvalidAccessKeyId|AuthFailure|InvalidToken|MissingAuthenticationToken)/,
    'aws-credentials-rejected',
  ],
  [/^(AccessDenied|UnauthorizedOperation|NotAuthorized)/, 'aws-access-denied'],
  [/^(Throttling|TooManyRequests|RequestLimitExceeded)/, 'aws-throttled'],
];
const AWS_HINTS: Readonly<Record<AwsErrorCode, string>> = {
  'no-aws-credentials': 'Sign in (for example: aws sso login), or name a profile with --profile.',
  'aws-session-expired': SIGN_IN,
  'aws-credentials-rejected': SIGN_IN,
  'aws-access-denied': 'docs/command-line.md lists the permissions that each command needs.',
  'aws-throttled': 'Try again in a minute.',
};
/** "The Canonical String for this request should have been …", with the session's token in it. */
const QUOTES_REQUEST = /Signature/;

const NETWORK_HINT = 'Check the network, the VPN and the proxy (HTTPS_PROXY).';
const NETWORK_CODES =
  /^(E(CONN|HOST|NET|AI_|NOTFOUND|TIMEDOUT|PIPE|PROTO)|ERR_(TLS|SSL|SOCKET|PROXY)|CERT_|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED|UND_ERR)/;
const PORTAL_HINT = 'Is a proxy or a captive portal in the way? Check the network and HTTPS_PROXY.';
export const REGION_HINT = 'Set AWS_REGION, or add --region REGION.';
const MAX_MESSAGE_LENGTH = 600;

/**
 * Classifies a failure.
 *
 * @param action what failed, such as `reading the stack`; undefined where the failure names it
 */
export function toCliError(error: unknown, action?: string): CliError {
  if (error instanceof CliError) return error;
  const { name = '', message = String(error) } = error as Partial<Error>;
  const detail = line(message) || name;
  const fail = (code: ErrorCode, problem: string, hint?: string) =>
    new CliError(
      code,
      sentence(action === undefined ? problem : `${action} failed: ${problem}`),
      hint,
      error,
    );
  // The AWS SDK throws a plain Error where no option, environment variable or profile names a region.
  if (/region is missing/i.test(message))
    return new CliError('no-region', 'No AWS region is configured.', REGION_HINT, error);
  const causes = chain(error);
  const isNamed = (pattern: RegExp) => causes.some((one) => pattern.test(one.name));
  const [, known] = AWS_ERRORS.find(([pattern]) => isNamed(pattern)) ?? [];
  if (known !== undefined) {
    const isExpired = ERRORS[known].exitCode === EXIT.unauthenticated && /\bexpired\b/i.test(message);
    const code = isExpired ? 'aws-session-expired' : known;
    const meaning = ERRORS[code].meaning.replace(/\.$/, '');
    return fail(code, isNamed(QUOTES_REQUEST) ? meaning : `${meaning}: ${detail}`, AWS_HINTS[code]);
  }
  const { code } = causes.find((one) => NETWORK_CODES.test(one.code ?? '')) ?? {};
  const isTimeout = isNamed(/^TimeoutError$/);
  if (
    code === undefined &&
    // The SDK reports a response that stopped in its middle as both.
    !isTimeout &&
    (/Deserialization error/.test(message) || isNamed(/^(SyntaxError|ZodError|\$ZodError)$/))
  )
    // The page of a captive portal or proxy, which may hold anything.
    return fail('unexpected-response', 'the response is not the expected one', PORTAL_HINT);
  // The code `failed` of the transport means that the request was invalid.
  const hasNoResponse = causes.some((one) => one.name === 'TransportError' && one.code !== 'failed');
  if (code !== undefined || hasNoResponse || isTimeout || isNamed(/^AbortError$/)) {
    // Of the SDK: "a request has exceeded the configured 10000 ms requestTimeout", "the request socket timed out after 10000
    // ms of inactivity".
    const [, ms] = /(?:exceeded the configured|timed out after|within) (\d+) ms/.exec(message) ?? [];
    if (ms !== undefined) return fail('network', `no response within ${Number(ms) / 1000} s`, NETWORK_HINT);
    const named = code === undefined || detail.includes(code) ? '' : ` (${code})`;
    return fail('network', `no response: ${detail}${named}`, NETWORK_HINT);
  }
  // The SDK also sets `$metadata` on requests that never arrived.
  return causes.some(({ $metadata }) => $metadata?.httpStatusCode !== undefined)
    ? fail(
        'aws-error',
        detail,
        'AWS reported this error. Try again; if it persists, see health.aws.amazon.com.',
      )
    : fail('bug', detail, 'This is a bug. Please report it, with the command that you ran.');
}

/** With a capital at the beginning and a full stop at the end, unless it ends with another mark. */
function sentence(text: string): string {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}${/[.!?…]$/.test(text) ? '' : '.'}`;
}

/** An error of Node.js, undici, the transport or the AWS SDK. */
interface Cause extends Error {
  readonly code?: string;
  readonly $metadata?: { readonly httpStatusCode?: number };
}

/** A failure and its causes. If each of several addresses failed, the first failure stands for all. */
function chain(error: unknown): Cause[] {
  const all: Cause[] = [];
  for (let at = error; at instanceof Error && all.length < 5; at = at.cause) {
    const one: unknown = at instanceof AggregateError ? at.errors[0] : at;
    if (one instanceof Error) all.push(one);
  }
  return all;
}

/** Redacts and sanitizes another program's text, joins its words with single spaces, and shortens it. */
export function line(text: string): string {
  const one = sanitize(redact(text)).replaceAll(/\s+/g, ' ').trim();
  return one.length > MAX_MESSAGE_LENGTH ? `${one.slice(0, MAX_MESSAGE_LENGTH)}…` : one;
}
