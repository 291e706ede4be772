// Actions of the function's role are needed: without each, on a local AWS that enforces IAM, something fails that works with
// it. Those that the local AWS cannot show so are listed, with what shows them.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { deployStack } from '../bed/deploy.ts';
import { type Deployment, UNREACHABLE_KUBECONFIG } from '../bed/deployment.ts';
import { type Emulator, startEmulator } from '../bed/emulator.ts';
import { tools } from '../bed/toolchain.ts';

/** What shows each action in the tests that this file does not repeat. */
const SHOWN_ELSEWHERE: Readonly<Record<string, string>> = {
  'logs:CreateLogStream': 'Lambda writes the log; the local AWS does it without the role',
  'logs:PutLogEvents': 'Lambda writes the log; the local AWS does it without the role',
  'sqs:SendMessage': 'Lambda sends failed events; infra/deploy.test.ts reads them',
  'secretsmanager:BatchGetSecretValue': 'registered-clusters.test.ts: without it, values are read one by one',
  'secretsmanager:PutSecretValue': 'store-token.test.ts: a renewed token',
  'secretsmanager:UpdateSecretVersionStage': 'store-token.test.ts: a renewed token',
  'sns:Publish': 'e2e/announcements.test.ts',
};

let dir: string;
let emulator: Emulator;
let stack: Deployment;
let withAll: Awaited<ReturnType<typeof observed>>;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  emulator = await startEmulator({ dir, python: tools().python });
  stack = await deployStack(emulator, {
    context: { scheduleEnabled: false, clusterDeadlineSeconds: 5, allowLocalServers: true },
  });
  withAll = await observed('with-all');
});
afterAll(async () => {
  await emulator?.stop();
  await rm(dir, { recursive: true, force: true });
});

/** What the function does with one unreachable cluster, as far as it depends on permissions. */
async function observed(name: string) {
  await stack.registerCluster(name, UNREACHABLE_KUBECONFIG);
  const since = Date.now();
  const named = await stack.invoke({ clusters: [name] });
  const runs = [await stack.invoke(), await stack.invoke()];
  const status = await stack.invoke({ action: 'status' });
  const log = (await stack.logs(since)).map(({ message }) => message).join('\n');
  await stack.unregisterCluster(name);
  return {
    codes: JSON.stringify(named.payload).match(/"codes":\[[^\]]*\]/)?.[0],
    isSaved: !JSON.stringify(named.payload).includes('stateNotSaved'),
    errors: runs.map(({ payload }) =>
      String((payload as { errorMessage?: string }).errorMessage).slice(0, 30),
    ),
    isAnnounced: log.includes(`"message":"announced"`),
    isRefused: log.includes(`"message":"not announced"`),
    status: Object.keys(status.payload as object),
  };
}

test('the role has no action that this file does not know', async () => {
  const actions = (await stack.permissions()).flat();
  expect(actions.toSorted()).toEqual([...Object.keys(SHOWN_ELSEWHERE), ...TRIED].toSorted());
});

const TRIED = [
  'secretsmanager:ListSecrets',
  'secretsmanager:DescribeSecret',
  'secretsmanager:GetSecretValue',
  'dynamodb:UpdateItem',
  'dynamodb:Scan',
  'sns:GetTopicAttributes',
  'events:PutEvents',
];

test.each(TRIED)('without %s, a run or a status changes', async (action) => {
  const restore = await stack.forbid(action);
  try {
    const name = `without-${action.replaceAll(/[^a-z]/gi, '-').toLowerCase()}`;
    expect(await observed(name)).not.toEqual(withAll);
  } finally {
    await restore();
  }
});

test('with all of them again, nothing has changed', async () => {
  expect(await observed('again')).toEqual(withAll);
});
