// Tests versions of a registered secret on the local AWS. Contrary to the AWS documentation it accepts a second text for a
// version, and one label on two versions; renewal.test.ts tests both with an imitation of Secrets Manager.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CreateSecretCommand,
  GetSecretValueCommand,
  ListSecretVersionIdsCommand,
  PutSecretValueCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CLUSTERS_PREFIX } from '../../../../contract/names.ts';
import { replaceVersion } from '../../../../functions/refresher/tokens/store-token.ts';
import { startEmulator } from '../../../bed/emulator.ts';
import { tools } from '../../../bed/toolchain.ts';

let stack: AsyncDisposableStack;
let client: SecretsManagerClient;
const signal = AbortSignal.timeout(120_000);

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  const emulator = stack.use(await startEmulator({ dir, python: tools().python }));
  client = new SecretsManagerClient(emulator.clientConfig);
  stack.defer(() => client.destroy());
});
afterAll(() => stack.disposeAsync());

/** Registers a cluster. @returns the version */
async function register(name: string, SecretString = 'one'): Promise<string> {
  const { VersionId = '' } = await client.send(
    new CreateSecretCommand({ Name: `${CLUSTERS_PREFIX}${name}`, SecretString }),
  );
  return VersionId;
}

async function current(name: string) {
  const { SecretString, VersionId } = await client.send(
    new GetSecretValueCommand({ SecretId: `${CLUSTERS_PREFIX}${name}` }),
  );
  return { text: SecretString, versionId: VersionId ?? '' };
}

test('replaces a version repeatedly, and moves AWSPREVIOUS to the one before', async () => {
  let versionId = await register('a');
  for (const text of ['two', 'three', 'four']) {
    const before = versionId;
    expect(await replaceVersion(client, { name: 'a', versionId }, text, signal)).toBe('stored');
    const now = await current('a');
    expect(now.text).toBe(text);
    versionId = now.versionId;
    const { Versions = [] } = await client.send(
      new ListSecretVersionIdsCommand({ SecretId: `${CLUSTERS_PREFIX}a` }),
    );
    const labelled = Object.fromEntries(
      Versions.flatMap((version) => (version.VersionStages ?? []).map((stage) => [stage, version.VersionId])),
    );
    expect(labelled).toMatchObject({ AWSCURRENT: versionId, AWSPREVIOUS: before });
  }
});

test('does not replace a version that is no longer current', async () => {
  const versionId = await register('b');
  await client.send(
    new PutSecretValueCommand({ SecretId: `${CLUSTERS_PREFIX}b`, SecretString: 'by an operator' }),
  );
  expect(await replaceVersion(client, { name: 'b', versionId }, 'two', signal)).toBe('superseded');
  expect((await current('b')).text).toBe('by an operator');
});

test('fails for a secret that does not exist', async () => {
  const attempt = replaceVersion(client, { name: 'nothing', versionId: 'x' }, 'two', signal);
  await expect(attempt).rejects.toMatchObject({ name: 'ResourceNotFoundException' });
});
