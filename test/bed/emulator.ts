// The local AWS: MiniStack with IAM enforced, over TLS, on a free loopback port. It runs the deployed function with the
// first Node on its PATH.
import { mkdir, writeFile } from 'node:fs/promises';
import { Agent, get } from 'node:https';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createAuthority } from './certificates.ts';
import { freePorts, startProgram } from './process.ts';

const ACCOUNT = '111122223333';
const REGION = 'eu-central-1';
const SERVER = fileURLToPath(new URL('local_aws.py', import.meta.url));

export interface EmulatorOptions {
  /** Directory for everything it writes: data, log, certificate, temporary files. */
  readonly dir: string;
  /** Path of a Python with MiniStack installed. */
  readonly python: string;
  /** Additional environment variables; the functions inherit them. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Configuration for every client of the AWS SDK. */
export interface ClientConfig {
  readonly endpoint: string;
  readonly region: string;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
  readonly requestHandler: { readonly httpsAgent: Agent };
}

export interface Emulator extends AsyncDisposable {
  readonly dir: string;
  readonly endpoint: string;
  readonly account: string;
  readonly region: string;
  /** A clean environment for child processes that call it as the account's root. */
  readonly env: Readonly<Record<string, string>>;
  /** Configuration of clients in this process, as the account's root. */
  readonly clientConfig: ClientConfig;
  readonly logPath: string;
  /** Stops it. Idempotent. */
  stop(): Promise<void>;
}

/** Starts the local AWS and waits until it answers. @throws Error with the end of its log if it does not */
export async function startEmulator({ dir, python, env = {} }: EmulatorOptions): Promise<Emulator> {
  const tmp = join(dir, 'tmp');
  const home = join(dir, 'home');
  await mkdir(tmp, { recursive: true });
  await mkdir(home, { recursive: true });
  // It unpacks functions here and adds CommonJS files; they must have no ancestor with "type": "module".
  await writeFile(join(tmp, 'package.json'), '{}');

  const certificate = join(dir, 'emulator.crt');
  const key = join(dir, 'emulator.key');
  const authority = await createAuthority('local AWS');
  const { certPem, keyPem } = await authority.serving(['127.0.0.1', 'localhost']);
  const trusted = join(dir, 'emulator-ca.crt');
  await writeFile(certificate, certPem);
  await writeFile(key, keyPem, { mode: 0o600 });
  await writeFile(trusted, authority.caPem);
  const ca = authority.caPem;

  const [port] = await freePorts(1);
  const endpoint = `https://127.0.0.1:${port}`;
  const bin = fileURLToPath(new URL('../../node_modules/.bin', import.meta.url));
  const base = { PATH: `${bin}:/usr/local/bin:/usr/bin:/bin`, HOME: home, TMPDIR: tmp, LANG: 'C.UTF-8' };
  const httpsAgent = new Agent({ ca, keepAlive: true });
  const program = await startProgram(
    'The local AWS',
    python,
    // MiniStack's own entry point would also listen on port 443.
    ['-m', 'hypercorn', `${SERVER}:app`, '--bind', `127.0.0.1:${port}`]
      .concat('--certfile', certificate, '--keyfile', key)
      .concat('--keep-alive', '75', '--graceful-timeout', '0'),
    {
      cwd: dir,
      logPath: join(dir, 'emulator.log'),
      env: {
        ...base,
        AUTH: 'true',
        USE_SSL: '1',
        MINISTACK_SSL_CERT: certificate,
        MINISTACK_SSL_KEY: key,
        NODE_EXTRA_CA_CERTS: trusted,
        AWS_CA_BUNDLE: trusted,
        MINISTACK_ACCOUNT_ID: ACCOUNT,
        MINISTACK_REGION: REGION,
        GATEWAY_PORT: String(port),
        STATE_DIR: join(dir, 'state'),
        S3_DATA_DIR: join(dir, 's3'),
        PYTHONDONTWRITEBYTECODE: '1',
        // Disabled: this listener uses a fixed port.
        SFTP_ENABLED: '0',
        IOT_MTLS_ENABLED: '0',
        ...env,
      },
      // Only this process has the certificate's key, so an answer cannot come from another test bed.
      isReady: () => answers(`${endpoint}/_ministack/health`, httpsAgent),
    },
  );
  const stop = async () => {
    httpsAgent.destroy();
    await program.stop();
  };

  const credentials = { accessKeyId: ACCOUNT, secretAccessKey: 'test' };
  return {
    dir,
    endpoint,
    account: ACCOUNT,
    region: REGION,
    env: {
      ...base,
      AWS_ENDPOINT_URL: endpoint,
      AWS_REGION: REGION,
      AWS_DEFAULT_REGION: REGION,
      AWS_ACCESS_KEY_ID: credentials.accessKeyId,
      AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_CONFIG_FILE: join(home, 'no-config'),
      AWS_SHARED_CREDENTIALS_FILE: join(home, 'no-credentials'),
      NODE_EXTRA_CA_CERTS: trusted,
      AWS_CA_BUNDLE: trusted,
    },
    clientConfig: { endpoint, region: REGION, credentials, requestHandler: { httpsAgent } },
    logPath: program.logPath,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function answers(url: string, agent: Agent): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const request = get(url, { agent }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.setTimeout(2_000, () => request.destroy(new Error('no answer')));
    request.on('error', reject);
  });
}
