// Runs the exec plugin of the operator's kubeconfig as kubectl does (client-go, plugin/pkg/client/auth/exec). client-node
// passes no KUBERNETES_EXEC_INFO, by which plugins learn the API version and the cluster, and no terminal for a sign-in.

import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { parse } from 'yaml';
import { z } from 'zod';
import type { Exec } from './kubeconfig.ts';

const ExecCredential = z.object({
  apiVersion: z.string(),
  kind: z.literal('ExecCredential'),
  status: z.object({
    token: z.string().nullish(),
    clientCertificateData: z.string().nullish(),
    clientKeyData: z.string().nullish(),
    expirationTimestamp: z.iso.datetime({ offset: true }).nullish(),
  }),
});

/** What a plugin printed. The certificate and its key are PEM. */
export interface PluginCredential {
  readonly token?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

/** The cluster of a plugin with `provideClusterInfo` (client.authentication.k8s.io, "Cluster"). */
export type ClusterInfo = Readonly<Record<string, unknown>>;

/** An exec entry, and the credential that its plugin printed, until that expires. */
export class ExecPlugin {
  readonly #exec: Exec;
  readonly #cluster: ClusterInfo;
  #credential: { readonly credential: PluginCredential; readonly expiresAt: number } | undefined;
  #run: Promise<PluginCredential> | undefined;

  constructor(exec: Exec, cluster: ClusterInfo) {
    this.#exec = exec;
    this.#cluster = cluster;
  }

  /** Whether the plugin may ask the operator something. */
  get isInteractive(): boolean {
    return this.#exec.interactiveMode !== 'Never' && process.stdin.isTTY === true;
  }

  /**
   * Runs the plugin, unless its last credential is still valid. Requests at the same time share a run.
   *
   * @param signal ends the plugin
   * @throws Error whose message is the reason, without what the plugin printed on standard output
   */
  async credential(signal: AbortSignal): Promise<PluginCredential> {
    if (this.#credential && Date.now() <= this.#credential.expiresAt) return this.#credential.credential;
    this.#run ??= this.#obtain(signal).finally(() => {
      this.#run = undefined;
    });
    return this.#run;
  }

  /** Has the next request run the plugin: the API server rejected the credential. */
  forget(): void {
    this.#credential = undefined;
  }

  async #obtain(signal: AbortSignal): Promise<PluginCredential> {
    const { apiVersion, interactiveMode } = this.#exec;
    if (interactiveMode === 'Always' && !this.isInteractive)
      throw new Error('its interactiveMode is Always, and standard input is not a terminal');
    const printed = await this.#output(signal);
    const parsed = ExecCredential.safeParse(parseOutput(printed));
    if (!parsed.success) throw new Error('it printed no ExecCredential');
    if (parsed.data.apiVersion !== apiVersion)
      throw new Error(`it printed an ExecCredential of another apiVersion than ${apiVersion}`);
    const { token, clientCertificateData, clientKeyData, expirationTimestamp } = parsed.data.status;
    const credential = {
      token: token || undefined,
      cert: clientCertificateData || undefined,
      key: clientKeyData || undefined,
    };
    if (!credential.token && !credential.cert && !credential.key)
      throw new Error('it printed neither a token nor a client certificate');
    if (!credential.cert !== !credential.key)
      throw new Error('it printed only one of the client certificate and its key');
    const expiresAt = expirationTimestamp ? Date.parse(expirationTimestamp) : Number.POSITIVE_INFINITY;
    this.#credential = { credential, expiresAt };
    return credential;
  }

  /** Runs the command. @returns its standard output */
  #output(signal: AbortSignal): Promise<string> {
    const { apiVersion, command, args, env, provideClusterInfo } = this.#exec;
    const { isInteractive } = this;
    const info = {
      kind: 'ExecCredential',
      apiVersion,
      spec: { ...(provideClusterInfo && { cluster: this.#cluster }), interactive: isInteractive },
    };
    const child = spawn(command, args, {
      env: {
        ...process.env,
        ...Object.fromEntries(env.map(({ name, value }) => [name, value])),
        KUBERNETES_EXEC_INFO: JSON.stringify(info),
      },
      stdio: [isInteractive ? 'inherit' : 'ignore', 'pipe', 'pipe'],
      signal,
      windowsHide: true,
    });
    // The plugin's instructions for a sign-in, such as a URL and a code.
    if (isInteractive) child.stderr.on('data', (chunk: Buffer) => process.stderr.write(chunk));
    const output = Promise.all([text(child.stdout), text(child.stderr)]);
    return new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code) => {
        output.then(([stdout, stderr]) => (code === 0 ? resolve(stdout) : reject(new Error(stderr))), reject);
      });
    });
  }
}

function parseOutput(printed: string): unknown {
  try {
    return parse(printed, { logLevel: 'silent', prettyErrors: false });
  } catch {
    return undefined;
  }
}
