// Benchmarks admissions per second and memory with 1, 10 and 100 registries: the webhook bundle against a bare Node HTTPS
// server that sends a constant answer of the same size and writes the same log line. Rounds alternate, so that changes in
// the machine's speed affect both.
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ANNOTATION, SECRET_LABEL, SECRET_TYPE, WEBHOOK_PATH } from '../../contract/names.ts';
import { buildWebhook } from '../../webhook/build.ts';
import { startAwsEndpoint } from '../bed/aws-endpoint.ts';
import { createAuthority } from '../bed/certificates.ts';
import { freePorts, type Program, startProgram } from '../bed/process.ts';
import { type Load, load, post } from './load.ts';
import { median, type Row } from './table.ts';

const CONNECTIONS = 64;
const SECONDS = 2;
const ROUNDS = 5;
const MIB = 1024 * 1024;

/** Measures a CREATE with cached tokens, and an UPDATE that keeps the stored entries. */
export async function benchAdmissions(dir: string): Promise<Row[]> {
  await mkdir(dir, { recursive: true });
  const path = (file: string) => join(dir, file);
  const authority = await createAuthority('bench');
  const { certPem, keyPem } = await authority.serving(['localhost']);
  await writeFile(path('tls.crt'), certPem);
  await writeFile(path('tls.key'), keyPem, { mode: 0o600 });
  await buildWebhook(path('webhook.mjs'));
  const rows: Row[] = [];
  for (const registries of [1, 10, 100]) rows.push(...(await benchWith(registries, path, authority.caPem)));
  return rows;
}

async function benchWith(registries: number, path: (file: string) => string, ca: string): Promise<Row[]> {
  await using ecr = await startAwsEndpoint();
  await writeFile(path('policy.yaml'), policyOf(registries));
  const [port = 0] = await freePorts(1);
  await using program = await start(path('webhook.log'), port, [path('webhook.mjs')], {
    HOST: '127.0.0.1',
    PORT: String(port),
    CERT_FILE: path('tls.crt'),
    KEY_FILE: path('tls.key'),
    POLICY_FILE: path('policy.yaml'),
    DRAIN_SECONDS: '0',
    // The JavaScript heap that the chart's memory limit of 512 MiB allows.
    NODE_OPTIONS: `--max-old-space-size=${Math.round(0.6 * 512)}`,
    AWS_REGION: 'eu-central-1',
    ...ecr.env,
    AWS_ACCESS_KEY_ID: 'bench',
    AWS_SECRET_ACCESS_KEY: 'bench',
  });
  const webhook = { origin: `https://127.0.0.1:${port}`, ca, path: WEBHOOK_PATH };

  const secret = {
    metadata: { name: 'pull', namespace: 'team-a', labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
    type: SECRET_TYPE,
  };
  const create = review('CREATE', secret);
  const answer = await post(webhook, create);
  const patch = JSON.parse(Buffer.from(JSON.parse(answer).response.patch, 'base64').toString());
  const stored = {
    ...secret,
    data: patch.find((operation: { path: string }) => operation.path === '/data').value,
    metadata: {
      ...secret.metadata,
      annotations: patch.find((operation: { path: string }) => operation.path === '/metadata/annotations')
        .value,
    },
  };
  if (!stored.metadata.annotations[ANNOTATION.fingerprint]) throw new Error('the webhook injected nothing');
  const keep = review(
    'UPDATE',
    { ...stored, metadata: { ...stored.metadata, finalizers: ['example.com/x'] } },
    stored,
  );

  const rows: Row[] = [];
  for (const [title, body] of [
    ['CREATE, tokens from the cache', create],
    ['UPDATE, credentials kept', keep],
  ] as const) {
    await writeFile(path('answer.json'), await post(webhook, body));
    const [barePort = 0] = await freePorts(1);
    const script = fileURLToPath(new URL('bare-server.ts', import.meta.url));
    const args = [
      script,
      path('tls.crt'),
      path('tls.key'),
      '127.0.0.1',
      String(barePort),
      path('answer.json'),
    ];
    await using bareProgram = await start(path('bare.log'), barePort, args, {});
    const bare = { ...webhook, origin: `https://127.0.0.1:${barePort}` };
    const rounds: { bare: Load; ours: Load }[] = [];
    for (let round = 0; round <= ROUNDS; round++) {
      const pair = {
        bare: await load(bare, body, CONNECTIONS, SECONDS),
        ours: await load(webhook, body, CONNECTIONS, SECONDS),
      };
      if (round > 0) rounds.push(pair); // the first one warms both up
    }
    const show = ({ perSecond, p99 }: Load, mib: number) =>
      `${Math.round(perSecond)}/s, p99 ${Math.round(p99)} ms, ${mib} MiB`;
    const [bareMib, ourMib] = [await memory(bareProgram), await memory(program)];
    const middle = rounds.toSorted((a, b) => a.ours.perSecond - b.ours.perSecond)[Math.floor(ROUNDS / 2)];
    rows.push({
      what: `${registries} registries: ${title} (${(body.length / 1024).toFixed(1)} kB in)`,
      floor: middle ? show(middle.bare, bareMib) : '',
      ours: middle ? show(middle.ours, ourMib) : '',
      ratio: median(rounds.map((round) => round.ours.perSecond / round.bare.perSecond)),
      aim: 0.7,
    });
  }
  return rows;
}

/** Registries of different accounts that all use the webhook's own token, so that only their entries cost time. */
function policyOf(registries: number): string {
  const hosts = Array.from(
    { length: registries },
    (_, index) => `${String(111_111_111_111 + index)}.dkr.ecr.eu-central-1.amazonaws.com`,
  );
  return JSON.stringify({ registries: hosts.map((host) => ({ host, namespaces: ['*'] })) });
}

/** Returns a process's resident memory, in MiB. */
async function memory({ pid }: Program): Promise<number> {
  const [, kib = '0'] = /VmRSS:\s+(\d+) kB/.exec(await readFile(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Math.round((Number(kib) * 1024) / MIB);
}

function review(operation: 'CREATE' | 'UPDATE', object: unknown, oldObject: unknown = null): string {
  return JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: '705ab4f5-6393-11e8-b7cc-42010a800002',
      kind: { group: '', version: 'v1', kind: 'Secret' },
      resource: { group: '', version: 'v1', resource: 'secrets' },
      name: 'pull',
      namespace: 'team-a',
      operation,
      userInfo: { username: 'bench', groups: ['system:authenticated'] },
      object,
      oldObject,
      dryRun: false,
    },
  });
}

function start(logPath: string, port: number, args: string[], env: Record<string, string>): Promise<Program> {
  return startProgram(`what listens on ${port}`, process.execPath, args, {
    env,
    logPath,
    isReady: () =>
      new Promise((resolve) => {
        const socket = connect(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false));
        socket.on('connect', () => socket.destroy());
      }),
  });
}
