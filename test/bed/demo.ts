// `npm run demo`: the main job from end to end on this machine. Two Secrets get ECR credentials on creation, become due,
// and are refreshed by the deployed function on its own schedule.
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import Table from 'cli-table3';
import { freshness } from '../../contract/freshness.ts';
import { ANNOTATION, SECRET_KEY } from '../../contract/names.ts';
import { runSteps } from './progress.ts';
import { Bed, interrupted } from './up.ts';

const CLUSTER = 'demo';
/** Lifetime of the first tokens: long enough to be shown, short enough to be due at once. */
const SHORT_LIFE_S = 300;
/** The schedule fires once a minute; the local AWS checks schedules every ten seconds. */
const TICK_WITHIN_MS = 120_000;

const MANIFEST = `apiVersion: v1
kind: Namespace
metadata:
  name: team-a
  labels:
    ecr-anywhere.centml.ai/namespace: enabled
---
apiVersion: v1
kind: Secret
metadata:
  name: ecr
  namespace: team-a
  labels:
    ecr-anywhere.centml.ai/managed: "true"
type: kubernetes.io/dockerconfigjson
---
apiVersion: v1
kind: Secret
metadata:
  name: ecr-with-placeholder
  namespace: team-a
  labels:
    ecr-anywhere.centml.ai/managed: "true"
type: kubernetes.io/dockerconfigjson
data:
  .dockerconfigjson: ${Buffer.from('FAKE').toString('base64')}
`;

interface Credentials {
  readonly host: string;
  /** Hash of the password. */
  readonly hash: string;
  readonly expiresAt: string;
}

const keep = process.argv.includes('--keep');
const bed = await Bed.create({ clusters: [CLUSTER], context: { rateMinutes: 1 } });
const before = new Map<string, Credentials>();
const after = new Map<string, Credentials>();

try {
  await runSteps([
    ...bed.tasks(),
    {
      title: 'kubectl apply: a Namespace and two Secrets, one without data, one with a placeholder',
      task: async (_, task) => {
        bed.ecr.settings.nextLifetimesSeconds = [SHORT_LIFE_S, SHORT_LIFE_S];
        const { stdout } = await kubectl(['apply', '-f', '-'], MANIFEST);
        for (const [name, credentials] of await readSecrets()) before.set(name, credentials);
        task.title = `kubectl apply: ${stdout.trim().replaceAll('\n', ', ')}; both hold ECR credentials, due at once`;
      },
    },
    {
      title: 'Wait for the schedule to invoke the function (once a minute)',
      task: async (_, task) => {
        const since = Date.now();
        while (after.size < before.size) {
          const waited = Date.now() - since;
          if (waited > TICK_WITHIN_MS)
            throw new Error(`nothing was refreshed within ${TICK_WITHIN_MS / 1000} s`);
          // A terminal updates one line; a log would get a line each time.
          if (process.stdout.isTTY) task.output = `${Math.round(waited / 1000)} s`;
          await sleep(1_000);
          for (const [name, credentials] of await readSecrets()) {
            const isNew = credentials.hash !== before.get(name)?.hash;
            if (isNew && !freshness(credentials.expiresAt, Date.now()).due) after.set(name, credentials);
          }
        }
      },
    },
  ]);
} catch (error) {
  bed.keepFolder = true;
  await saveFunctionLog();
  console.error(`\n✖ ${(error as Error).message}\nAll logs are in ${bed.dir}`);
  await bed[Symbol.asyncDispose]();
  process.exit(1);
}

const head = ['Secret', 'registry', 'before', 'after', 'expires', 'requested by'];
const table = new Table({ head, style: { head: [], border: [] } });
for (const [name, { host, hash, expiresAt }] of after) {
  table.push([name, host, before.get(name)?.hash ?? '', hash, expiresAt, requesterOf(name)]);
}
console.log(`\n${table}\n(before, after: a hash of the password)\n`);
if (keep) {
  console.log(`${bed.howToLookAround()}\nPress Ctrl-C to stop.`);
  await interrupted();
} else {
  console.log('To look around while it runs: npm run demo -- --keep');
}
await bed[Symbol.asyncDispose]();
process.exit(0);

async function kubectl(args: readonly string[], input?: string): Promise<{ stdout: string }> {
  return bed.cluster(CLUSTER).controlPlane.kubectl(args, input === undefined ? {} : { input });
}

/** Reads the Secrets' credentials with kubectl. */
async function readSecrets(): Promise<Map<string, Credentials>> {
  const { stdout } = await kubectl(['get', 'secrets', '--namespace', 'team-a', '-o', 'json']);
  const found = new Map<string, Credentials>();
  for (const { metadata, data } of JSON.parse(stdout).items) {
    const { auths } = JSON.parse(Buffer.from(data[SECRET_KEY], 'base64').toString());
    for (const [host, { password }] of Object.entries(auths as Record<string, { password: string }>)) {
      const hash = createHash('sha256').update(password).digest('hex').slice(0, 8);
      found.set(`team-a/${metadata.name}`, {
        host,
        hash,
        expiresAt: metadata.annotations[ANNOTATION.expiresAt],
      });
    }
  }
  return found;
}

/** Returns the user of the last injection into a Secret, from the webhook's log. */
function requesterOf(secret: string): string {
  const lines = bed.cluster(CLUSTER).webhook.program.log().trim().split('\n');
  const written = lines
    .map((line) => JSON.parse(line))
    .filter((line) => line.secret === secret && line.action === 'inject');
  const { reason, user } = written.at(-1) ?? {};
  return `${String(user).replace('system:serviceaccount:', '')} (${reason})`;
}

async function saveFunctionLog(): Promise<void> {
  try {
    const lines = await bed.deployment.logs();
    await writeFile(join(bed.dir, 'function.log'), lines.map(({ message }) => message).join('\n'));
  } catch {
    // The function was not deployed, so there is no log.
  }
}
