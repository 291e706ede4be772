// Starts the webhook bundle as a process, with certificates and a local ECR, and a client that trusts it.
import { mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { Readable } from 'node:stream';
import { connect } from 'node:tls';
import { buildConnector, Client, type Dispatcher, Pool } from 'undici';
import { buildWebhook } from '../../webhook/build.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../bed/aws-endpoint.ts';
import { type Authority, createAuthority } from '../bed/certificates.ts';
import { keepEvidence } from '../bed/evidence.ts';
import { freePorts, type Program, startProgram } from '../bed/process.ts';
import type { VirtualClock } from '../virtual-clock.ts';

/** The code of an error if no connection could be made, so that nothing was sent. */
export const NOT_CONNECTED = 'NOT_CONNECTED';

export interface Answered {
  readonly status: number;
  readonly text: string;
  /** Whether the answer closes its connection. */
  readonly closes: boolean;
}

type SendBody = string | Readable | undefined;
interface SendOptions {
  method?: 'GET' | 'POST';
  type?: string;
  over?: Dispatcher;
}

export interface RunningWebhook extends AsyncDisposable {
  readonly program: Program;
  readonly ecr: AwsEndpoint;
  readonly authority: Authority;
  readonly dir: string;
  readonly port: number;
  /** Sends over any of several connections, or over one of `client()`. */
  send(path: string, body: SendBody, options?: SendOptions): Promise<Answered>;
  /** A client with one connection, which is opened again after it has ended. */
  client(): Client;
  /** The serial number of the certificate that a new connection gets. */
  servedSerial(): Promise<string>;
  readonly metricsUrl: string;
  /** The metrics, as Prometheus reads them. */
  metrics(): Promise<string>;
  /** Replaces the policy document, as the kubelet does. */
  setPolicy(text: string): Promise<void>;
}

type Environment = Readonly<Record<string, string | undefined>>;

export interface RunOptions {
  /** More environment variables; undefined removes one. */
  readonly env?: Environment | ((ecr: AwsEndpoint, dir: string) => Environment | Promise<Environment>);
  readonly layout?: Layout;
  /** The policy document, in YAML or JSON. By default every namespace gets the webhook's own registry. */
  readonly policy?: string;
  /** The path that answers with 200 as soon as the webhook has started. */
  readonly startedPath?: '/readyz' | '/healthz';
  /** The AWS account of the webhook's identity. */
  readonly account?: string;
  /** The clock of both the webhook and the local AWS. */
  readonly clock?: VirtualClock;
}

/** Whether the certificates are files, or symbolic links into a directory that is swapped, as in a Secret volume. */
export type Layout = 'files' | 'links';

/** The logs of the webhooks that have ended, and their ECRs. */
export const ended: { readonly log: string; readonly ecr: AwsEndpoint }[] = [];

/** The policy that gives every namespace the webhook's own registry. */
export const OWN_REGISTRY = 'ownRegistry: {namespaces: ["*"]}';

/** Starts a webhook. */
export async function runWebhook({
  env = {},
  layout = 'files',
  policy = OWN_REGISTRY,
  startedPath = '/readyz',
  account,
  clock,
}: RunOptions = {}): Promise<RunningWebhook> {
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-webhook-'));
  const authority = await createAuthority('test');
  await writePair(authority, dir, layout);
  const bundle = join(dir, 'webhook.mjs');
  await buildWebhook(bundle);
  const ecr = await startAwsEndpoint({ ...(clock && { now: clock.now }), ...(account && { account }) });
  const policyFile = join(dir, 'policy.yaml');
  const setPolicy = async (text: string) => {
    await writeFile(`${policyFile}.new`, text);
    await rename(`${policyFile}.new`, policyFile);
  };
  await setPolicy(policy);
  const [port = 0, metricsPort = 0] = await freePorts(2);
  const origin = `https://127.0.0.1:${port}`;
  const connector = buildConnector({ ca: authority.caPem, servername: 'localhost', allowH2: false });
  const options: Pool.Options & Client.Options = {
    allowH2: false,
    // Tests distinguish a connection that was never made from one that was dropped.
    connect: (options, callback) =>
      connector(options, (...[error, socket]) =>
        error ? callback(Object.assign(error, { code: NOT_CONNECTED }), null) : callback(null, socket),
      ),
  };
  const pool = new Pool(origin, { ...options, connections: 64 });
  const clients: Client[] = [];
  const all: Environment = {
    HOST: '127.0.0.1',
    PORT: String(port),
    METRICS_PORT: String(metricsPort),
    CERT_FILE: join(dir, 'tls.crt'),
    KEY_FILE: join(dir, 'tls.key'),
    TIMEOUT_SECONDS: '3',
    DRAIN_SECONDS: '0',
    AWS_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
    ...ecr.env,
    ...clock?.env,
    POLICY_FILE: policyFile,
    ...(typeof env === 'function' ? await env(ecr, dir) : env),
  };
  const given = Object.entries(all).filter((entry): entry is [string, string] => entry[1] !== undefined);
  const program = await startProgram('the webhook', process.execPath, [...(clock?.nodeArgs ?? []), bundle], {
    env: Object.fromEntries(given),
    logPath: join(dir, 'webhook.log'),
    isReady: async () => (await pool.request({ method: 'GET', path: startedPath })).statusCode === 200,
  });
  const metricsUrl = `http://127.0.0.1:${metricsPort}/metrics`;
  const metrics = async () => (await fetch(metricsUrl)).text();
  return {
    program,
    ecr,
    authority,
    dir,
    port,
    async send(path, body, { method = 'POST', type = 'application/json', over = pool } = {}) {
      const answer = await over.request({
        method,
        path,
        headers: { 'content-type': type },
        ...(body !== undefined && { body }),
      });
      return {
        status: answer.statusCode,
        text: await answer.body.text(),
        closes: answer.headers.connection === 'close',
      };
    },
    client() {
      const client = new Client(origin, options);
      clients.push(client);
      return client;
    },
    servedSerial: () =>
      new Promise((resolve, reject) => {
        const socket = connect(
          { host: '127.0.0.1', port, ca: authority.caPem, servername: 'localhost' },
          () => {
            resolve(socket.getPeerCertificate().serialNumber);
            socket.destroy();
          },
        );
        socket.on('error', reject);
      }),
    metricsUrl,
    metrics,
    setPolicy,
    async [Symbol.asyncDispose]() {
      await Promise.all([pool, ...clients].map((dispatcher) => dispatcher.destroy()));
      if (program.isRunning()) keepEvidence('metrics', 'webhook', await metrics().catch(() => ''));
      await program.stop();
      ended.push({ log: program.log(), ecr });
      await ecr.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** Writes a new certificate and its key to the webhook's files. */
export async function writePair(authority: Authority, dir: string, layout: Layout = 'files'): Promise<void> {
  const { certPem, keyPem } = await authority.serving(['localhost']);
  const into = layout === 'files' ? dir : await mkdtemp(join(dir, '..pair-'));
  await writeFile(join(into, 'tls.crt'), certPem);
  await writeFile(join(into, 'tls.key'), keyPem, { mode: 0o600 });
  if (layout === 'links') await linkTo(into, dir);
}

/** Replaces the link `..data` atomically, as the kubelet does for a changed Secret. */
async function linkTo(target: string, dir: string): Promise<void> {
  const next = join(dir, '..data_tmp');
  await symlink(basename(target), next);
  await rename(next, join(dir, '..data'));
  for (const file of ['tls.crt', 'tls.key']) {
    await symlink(join('..data', file), join(dir, file)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
  }
}
