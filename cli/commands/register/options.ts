// The options of register, and which of them cannot be together. Pure.

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
  /** Name of the EKS cluster; absent: the context's. */
  readonly eksName?: string;
  readonly keyless?: true;
  readonly issuer?: string;
  /** Seconds. */
  readonly wait: number;
  readonly replace?: true;
  readonly dryRun?: true;
}

/** What commander cannot say of options. @throws CliError */
export function checkOptions(options: RegisterOptions): void {
  const { server, eks, keyless: isKeyless, issuer, wait, credential, duration } = options;
  const usage = (message: string) => new CliError('usage', message);
  if (server !== undefined && eks !== undefined)
    throw usage(
      '--server cannot be used with --eks: EKS itself names the endpoint, and no other is shown its tokens',
    );
  if (duration !== undefined && credential !== undefined)
    throw usage('--duration cannot be used with --credential: that lives as long as it does');
  if (!isKeyless && (issuer !== undefined || wait > 0))
    throw usage(`--${issuer === undefined ? 'wait' : 'issuer'} is for --keyless`);
  if (server === undefined) return;
  const url = URL.canParse(server) ? new URL(server) : undefined;
  if (url?.protocol !== 'https:') throw usage('--server must be an https URL');
  // It would be in the shell's history, and in the process list.
  if (url.username || url.password) throw usage('--server must not hold a user or a password');
}
