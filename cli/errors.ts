// Why a command could not do what it was asked: a sentence, the way out, and an exit code that scripts can tell apart.

/** Exit codes. 0: done, and all is well. */
export const EXIT = {
  /** Something is wrong with a cluster: a link is broken, a Secret was not refreshed. */
  unwell: 1,
  /** The command line was not understood. */
  usage: 2,
  /** Nobody is signed in to AWS, or the session has expired. */
  signIn: 3,
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
    super(message, { cause });
    this.exitCode = exitCode;
    this.hint = hint;
  }
}

/** What a signal is aborted with where somebody has pressed Ctrl-C. */
export class Interrupted extends CliError {
  constructor() {
    super(EXIT.interrupted, 'interrupted');
  }
}

const SIGN_IN = 'sign in again (aws sso login, aws login, …), or name another profile with --profile';

/** By the names of AWS' errors. */
const AWS_ERRORS: readonly (readonly [RegExp, ExitCode, string, string])[] = [
  [
    /^CredentialsProviderError$/,
    EXIT.signIn,
    'nobody is signed in to AWS',
    'sign in (aws sso login, aws login, …), or name a profile with --profile',
  ],
  [
    /^(ExpiredToken|TokenRefreshRequired|RequestExpired)/,
    EXIT.signIn,
    'the AWS session has expired',
    SIGN_IN,
  ],
  [
    /^(InvalidClientTokenId|UnrecognizedClient|InvalidSignature|SignatureDoesNotMatch|InvalidAccessKeyId|AuthFailure|InvalidToken)/,
    EXIT.signIn,
    'AWS does not accept these credentials',
    SIGN_IN,
  ],
  [
    /^(AccessDenied|UnauthorizedOperation|NotAuthorized)/,
    EXIT.denied,
    'AWS does not allow it',
    'docs/command-line.md has the policy that each command needs',
  ],
];

const NETWORK_CODES =
  /^(E(CONN|HOST|NET|AI_|NOTFOUND|TIMEDOUT|PIPE|PROTO)|ERR_(TLS|SSL|SOCKET)|CERT_|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED|UND_ERR)/;
const MAX_MESSAGE_LENGTH = 600;

/**
 * Any failure as one that was foreseen, as far as it can be told.
 *
 * @param what was being done, such as `reading the stack`; undefined: the failure says so itself
 */
export function explain(error: unknown, what?: string): CliError {
  if (error instanceof CliError) return error;
  const { name = '', message = String(error) } = error as Partial<Error>;
  const begin = what === undefined ? '' : `${what}: `;
  const said = line(message) || name;
  for (const [pattern, exitCode, meaning, hint] of AWS_ERRORS) {
    if (chain(error).some((one) => pattern.test(one.name)))
      return new CliError(exitCode, `${begin}${meaning}: ${said}`, hint, error);
  }
  const code = networkCode(error);
  if (
    code !== undefined ||
    chain(error).some(({ name: type }) => type === 'TimeoutError' || type === 'AbortError')
  ) {
    const named = code === undefined || said.includes(code) ? '' : ` (${code})`;
    const hint = 'is there a network, a VPN, a proxy (HTTPS_PROXY)?';
    return new CliError(EXIT.network, `${begin}no answer: ${said}${named}`, hint, error);
  }
  // The SDK's own word where neither option, environment nor profile names one.
  if (/region is missing/i.test(message))
    return new CliError(EXIT.usage, 'no AWS region', 'give --region, or set AWS_REGION', error);
  return new CliError(EXIT.failed, `${begin}${said}`, undefined, error);
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

/** The network's word for a failure, be it the failure's own or its cause's. */
function networkCode(error: unknown): string | undefined {
  const codes = chain(error).map((one) => (one as NodeJS.ErrnoException).code);
  return codes.find((code) => typeof code === 'string' && NETWORK_CODES.test(code));
}

/** In one line, and not for ever: others' words may be anything. */
export function line(text: string): string {
  const one = text.replaceAll(/[\p{C}\p{Zl}\p{Zp}\s]+/gu, ' ').trim();
  return one.length > MAX_MESSAGE_LENGTH ? `${one.slice(0, MAX_MESSAGE_LENGTH)}…` : one;
}
