// A credential to register, and reading the one that the operator provides with --credential.
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { formatTime } from '../../../contract/freshness.ts';
import { type RegisteredAccess, readKubeconfig } from '../../../lib/kubernetes/kubeconfig.ts';
import { readToken } from '../../../lib/kubernetes/service-account-token.ts';
import { CliError } from '../../output/errors.ts';
import type { RegisteredUser } from './kubeconfig.ts';

export interface Credential {
  readonly user: RegisteredUser;
  /** RFC 3339. Absent if the credential names no expiry. */
  readonly expiresAt?: string;
  /** Whether the refresher renews it before it expires. */
  readonly isRenewed: boolean;
}

/**
 * Reads the identity of a kubeconfig. Its server is ignored.
 *
 * @throws CliError if the file is unreadable, holds no token or certificate, or the credential has expired
 */
export async function readCredentialFile(path: string, now = Date.now()): Promise<Credential> {
  let credential: Credential;
  try {
    credential = credentialOf(readKubeconfig(await readFile(path, 'utf8')).identity);
  } catch (error) {
    // Only the file system's errors are shown by their code: their message repeats the path.
    const { syscall, code, message } = error as NodeJS.ErrnoException;
    throw new CliError(
      'credential-unreadable',
      `Could not read the credential from ${path}: ${syscall === undefined ? message : code}`,
      'Give --credential a kubeconfig that embeds a token or a client certificate.',
      error,
    );
  }
  const { expiresAt } = credential;
  if (expiresAt !== undefined && Date.parse(expiresAt) <= now)
    throw new CliError(
      'credential-expired',
      `The credential in ${path} expired at ${expiresAt}.`,
      "Omit --credential to register a token of the chart's ServiceAccount, which the refresher renews.",
    );
  return credential;
}

function credentialOf(identity: RegisteredAccess['identity']): Credential {
  if ('token' in identity) {
    const token = readToken(identity.token);
    return {
      user: { token: identity.token },
      ...(token?.expiresAt !== undefined && { expiresAt: formatTime(token.expiresAt) }),
      isRenewed: token !== undefined && !('reason' in token),
    };
  }
  if ('cert' in identity) {
    const base64 = (pem: string) => Buffer.from(pem).toString('base64');
    return {
      user: {
        'client-certificate-data': base64(identity.cert),
        'client-key-data': base64(identity.key),
      },
      expiresAt: formatTime(Date.parse(new X509Certificate(identity.cert).validTo)),
      isRenewed: false,
    };
  }
  throw new Error(
    'it holds neither a token nor a client certificate; for exec plugins use --eks or --keyless',
  );
}
