// The warnings that the webhook sends with an allowed request. The API has only strings for them, so each one begins with
// its data: `HOST: KIND: message`, or `HOST: KIND (REASON): message` where a token is missing. Pure.
import { TOKEN_FAILURES, type TokenFailure } from './denials.ts';

/** What became of a registry's credentials. The first two begin every version's warnings. */
export const WARNING_KINDS = [
  /** The stored entry was removed: the Secret is no longer entitled to the registry, or no longer selects it. */
  'removed',
  /** The Secret selects a registry that its namespace is not entitled to. */
  'not given',
  /** There is no new token; the stored entry stays, and is still valid. */
  'kept',
  /** There is no new token, and the Secret holds no valid entry. */
  'no credentials',
  /** ECR gave no new token; one from the cache, which is still valid, was written. */
  'cached token',
] as const;
export type WarningKind = (typeof WARNING_KINDS)[number];

export interface RegistryWarning {
  readonly host: string;
  readonly kind: WarningKind;
  /** Why there is no new token. */
  readonly reason?: TokenFailure;
  /** A sentence for people. */
  readonly message: string;
}

const WARNING = new RegExp(
  `^(?<host>\\S+?): (?<kind>${WARNING_KINDS.join('|')})(?: \\((?<reason>${TOKEN_FAILURES.join('|')})\\))?: (?<message>.*)$`,
  's',
);

export function formatWarning({ host, kind, reason, message }: RegistryWarning): string {
  return `${host}: ${kind}${reason === undefined ? '' : ` (${reason})`}: ${message}`;
}

/** Reads a warning of the webhook about one registry; undefined for any other warning. */
export function parseWarning(text: string): RegistryWarning | undefined {
  const groups = WARNING.exec(text)?.groups;
  if (!groups) return undefined;
  const { host = '', kind, reason, message = '' } = groups;
  return {
    host,
    kind: kind as WarningKind,
    ...(reason !== undefined && { reason: reason as TokenFailure }),
    message,
  };
}
