// The options of register, and which of them exclude each other. Pure.

import { CliError } from '../../output/errors.ts';
import type { IoOptions } from '../../output/io.ts';
import type { AwsOptions, KubeOptions } from '../../output/options.ts';

export interface RegisterOptions extends AwsOptions, KubeOptions, IoOptions {
  readonly server?: string;
  /** Hours. */
  readonly duration?: number;
  /** Path of a kubeconfig. */
  readonly credential?: string;
  readonly eks?: true;
  /** The cluster's name in EKS. Absent: the one that the context names. */
  readonly eksName?: string;
  readonly keyless?: true;
  readonly issuer?: string;
  /** Seconds. */
  readonly wait: number;
  readonly replace?: true;
  readonly dryRun?: true;
}

/** Checks what commander cannot check. @throws CliError */
export function checkOptions(options: RegisterOptions): void {
  const { server, eks, keyless: isKeyless, issuer, wait, credential, duration } = options;
  const usage = (message: string, hint: string) => new CliError('usage', message, hint);
  if (server !== undefined && eks !== undefined)
    throw usage('--server cannot be used with --eks, because EKS names the endpoint.', 'Omit --server.');
  if (duration !== undefined && credential !== undefined)
    throw usage(
      '--duration cannot be used with --credential, because the credential already has an expiry.',
      'Omit --duration.',
    );
  if (!isKeyless && (issuer !== undefined || wait > 0)) {
    const option = issuer === undefined ? '--wait' : '--issuer';
    throw usage(`${option} can only be used with --keyless.`, `Omit ${option}, or add --keyless.`);
  }
  if (server === undefined) return;
  const hint = 'Use a URL such as https://k8s.example.com:6443.';
  const url = URL.canParse(server) ? new URL(server) : undefined;
  if (url?.protocol !== 'https:') throw usage('--server must be an https URL.', hint);
  // They would be in the shell's history and in the process list.
  if (url.username || url.password) throw usage('--server must not contain a user name or a password.', hint);
}
