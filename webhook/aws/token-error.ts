// Why a token could not be obtained, as data: callers branch on `reason` and never parse the message.
import type { TokenFailure } from '../../contract/denials.ts';

export class TokenError extends Error {
  override readonly name = 'TokenError';
  readonly reason: TokenFailure;
  /** The ARN of the AWS principal that was refused, if known. */
  readonly principal: string | undefined;

  /** @param message a full clause that names the cause, without a credential in it */
  constructor(
    reason: TokenFailure,
    message: string,
    { principal, cause }: { principal?: string | undefined; cause?: unknown } = {},
  ) {
    super(message, cause === undefined ? {} : { cause });
    this.reason = reason;
    this.principal = principal;
  }
}

/** Any error as a TokenError; one that is none yet is `ecr-error`. */
export function tokenErrorOf(error: unknown): TokenError {
  if (error instanceof TokenError) return error;
  return new TokenError('ecr-error', error instanceof Error ? error.message : String(error), {
    cause: error,
  });
}

/**
 * The error after the time for all attempts is up.
 *
 * @param last the failure of the last attempt, if one ended in time: it names the cause better than the time limit does
 */
export function timedOut(withinMs: number, last?: TokenError): TokenError {
  const message = `ECR gave no token within ${withinMs / 1000} s`;
  if (!last) return new TokenError('ecr-unavailable', message);
  const { reason, principal } = last;
  return new TokenError(reason, `${message}; the last attempt failed: ${last.message}`, {
    principal,
    cause: last,
  });
}
