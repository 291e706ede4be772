// The webhook bundle as a process of its own, with certificates and ECR beside it, and a client that trusts it.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { buildConnector, Pool } from 'undici';
import { buildWebhook } from '../../webhook/build.ts';
import { type Authority, createAuthority } from '../bed/certificates.ts';
import { type EcrEndpoint, startEcrEndpoint } from '../bed/ecr-endpoint.ts';
import { freePorts, type Program, startProgram } from '../bed/process.ts';

/** The code of the error where no connection could be made: nothing was sent. */
export const NOT_CONNECTED = 'NOT_CONNECTED';

export interface Answered {
  readonly status: number;
  readonly text: string;
}

export interface RunningWebhook extends AsyncDisposable {
  readonly program: Program;
  readonly ecr: EcrEndpoint;
  readonly authority: Authority;
  readonly dir: string;
  readonly port: number;
  readonly pool: Pool;
  send(
    path: string,
    body: string | undefined,
    options?: { method?: 'GET' | 'POST'; type?: string },
  ): Promise<Answered>;
  /** The serial number of the certificate that a new connection is shown. */
  servedSerial(): Promise<string>;
}

/** Starts one. @param env more of its environment variables */
export async function runWebhook(env: Readonly<Record<string, string>> = {}): Promise<RunningWebhook> {
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-webhook-'));
  const authority = await createAuthority('test');
  await writePair(authority, dir);
  const bundle = join(dir, 'webhook.mjs');
  await buildWebhook(bundle);
  const ecr = await startEcrEndpoint();
  const [port = 0] = await freePorts(1);
  const connector = buildConnector({ ca: authority.caPem, servername: 'localhost', allowH2: false });
  const pool = new Pool(`https://127.0.0.1:${port}`, {
    connections: 64,
    allowH2: false,
    // A connection that was never made is another thing than one that was dropped.
    connect: (options, callback) =>
      connector(options, (...[error, socket]) =>
        error ? callback(Object.assign(error, { code: NOT_CONNECTED }), null) : callback(null, socket),
      ),
  });
  const program = await startProgram('the webhook', process.execPath, [bundle], {
    env: {
      HOST: '127.0.0.1',
      PORT: String(port),
      CERT_FILE: join(dir, 'tls.crt'),
      KEY_FILE: join(dir, 'tls.key'),
      TIMEOUT_SECONDS: '4',
      DRAIN_SECONDS: '0',
      AWS_REGION: 'eu-central-1',
      AWS_ENDPOINT_URL_ECR: ecr.url,
      AWS_ACCESS_KEY_ID: 'test',
      AWS_SECRET_ACCESS_KEY: 'test',
      ...env,
    },
    logPath: join(dir, 'webhook.log'),
    isReady: async () => (await pool.request({ method: 'GET', path: '/readyz' })).statusCode === 200,
  });
  return {
    program,
    ecr,
    authority,
    dir,
    port,
    pool,
    async send(path, body, { method = 'POST', type = 'application/json' } = {}) {
      const answer = await pool.request({
        method,
        path,
        headers: { 'content-type': type },
        ...(body !== undefined && { body }),
      });
      return { status: answer.statusCode, text: await answer.body.text() };
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
    async [Symbol.asyncDispose]() {
      await pool.destroy();
      await program.stop();
      await ecr.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** Writes a new certificate and its key where the webhook reads them. */
export async function writePair(authority: Authority, dir: string): Promise<void> {
  const { certPem, keyPem } = await authority.serving(['localhost']);
  await writeFile(join(dir, 'tls.crt'), certPem);
  await writeFile(join(dir, 'tls.key'), keyPem, { mode: 0o600 });
}
