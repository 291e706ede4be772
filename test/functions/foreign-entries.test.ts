// Entries that are not ours – Docker Hub, ghcr.io – on a real cluster, with the kubectl that people have: they stay byte
// for byte through a hundred refreshes, people change them when they like, and applying costs nothing.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, SECRET_TYPE } from '../../contract/names.ts';
import {
  outcomesOf,
  type RealCluster,
  type SecretObject,
  secretPath,
  startRealCluster,
} from './real-cluster.ts';

const HOSTS = ['111111111111', '222222222222'].map((id) => `${id}.dkr.ecr.eu-central-1.amazonaws.com`);
/** As nobody's serializer would write it. */
const DOCKER_HUB = (password: string) =>
  `"https://index.docker.io/v1/" :  { "email":"a@b.c", "auth": "${Buffer.from(`me:${password}`).toString('base64')}",\n "zz":[1, 2.50,{"b":null,"a":"\\u00e9\\u2028"}] }`;
const GHCR = '"ghcr.io":{"password":"ghp_x","username":"me"   }';
const MORE = '"credHelpers" : {"x.example.com":"x"}';
const configOf = (password: string) => `{ ${MORE}, "auths":{${DOCKER_HUB(password)} , ${GHCR}} }`;

let cluster: RealCluster;
beforeAll(async () => {
  cluster = await startRealCluster({
    document: { registries: HOSTS.map((host) => ({ host, namespaces: ['*'] })) },
  });
  await cluster.createNamespace('team');
});
afterAll(() => cluster?.[Symbol.asyncDispose]());

/** A manifest as somebody keeps it, with this docker config or without any. */
const manifestOf = (name: string, config?: string) =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name, namespace: 'team', labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
    type: SECRET_TYPE,
    ...(config !== undefined && { data: { [SECRET_KEY]: Buffer.from(config).toString('base64') } }),
  });
const apply = async (manifest: string, ...more: string[]) => {
  const { stdout } = await cluster.controlPlane.kubectl(['apply', ...more, '-f', '-'], { input: manifest });
  return stdout.trim();
};
const get = (name: string) => cluster.admin<SecretObject>('GET', secretPath(`team/${name}`));
const textOf = ({ data }: SecretObject) => Buffer.from(data?.[SECRET_KEY] ?? '', 'base64').toString();

/** The entries are there as they were written, and ours beside them. */
function expectForeign(secret: SecretObject, password: string): void {
  const text = textOf(secret);
  const trimmed = DOCKER_HUB(password).slice(DOCKER_HUB(password).indexOf('{'));
  expect(text).toContain(trimmed);
  expect(text).toContain(GHCR.slice(GHCR.indexOf('{')));
  const config = JSON.parse(text);
  expect(config.credHelpers).toEqual({ 'x.example.com': 'x' });
  expect(Object.keys(config.auths)).toEqual(['https://index.docker.io/v1/', 'ghcr.io', ...HOSTS]);
}

describe('a hundred refreshes, each with a new token', () => {
  test('every entry stays as it is, and a password that is changed in between sticks', async () => {
    const passwords = new Set<string>();
    let password = 'old';
    await apply(manifestOf('many', configOf(password)));
    for (let run = 1; run <= 100; run++) {
      if (run === 50) {
        password = 'changed';
        expect(await apply(manifestOf('many', configOf(password)))).toBe('secret/many configured');
        expectForeign(await get('many'), password);
      }
      const report = await cluster.refresh({ force: true });
      expect(outcomesOf(report)).toEqual({ refreshed: 1 });
      const secret = await get('many');
      expectForeign(secret, password);
      passwords.add(JSON.parse(textOf(secret)).auths[HOSTS[0] ?? ''].password);
    }
    expect(passwords.size).toBe(100);
  }, 120_000);

  test('changed by a patch it sticks, too', async () => {
    const data = { [SECRET_KEY]: Buffer.from(configOf('patched')).toString('base64') };
    await cluster.controlPlane.kubectl([
      ...['patch', 'secret', 'many', '--namespace', 'team', '--type=merge', '-p', JSON.stringify({ data })],
    ]);
    expectForeign(await get('many'), 'patched');
    await cluster.refresh({ force: true });
    expectForeign(await get('many'), 'patched');
  });

  test('an exported copy that is put back brings none of the older credentials in it', async () => {
    const { stdout: exported } = await cluster.controlPlane.kubectl([
      ...['get', 'secret', 'many', '--namespace', 'team', '-o', 'json'],
    ]);
    await cluster.refresh({ force: true });
    const { metadata, ...copy } = JSON.parse(exported);
    const older = textOf(copy);
    const input = JSON.stringify({ ...copy, metadata: { ...metadata, resourceVersion: undefined } });
    await cluster.controlPlane.kubectl(['replace', '-f', '-'], { input });
    // The older mark in it makes it a request.
    const after = await get('many');
    expectForeign(after, 'patched');
    const passwordOf = (text: string) => JSON.parse(text).auths[HOSTS[0] ?? ''].password;
    expect(passwordOf(textOf(after)) === passwordOf(older)).toBe(false);
    expect(cluster.ecr.calls.some(({ password }) => password === passwordOf(textOf(after)))).toBe(true);
  });
});

describe('the same manifest, every few seconds for a minute', () => {
  const KINDS = [
    { name: 'client', args: [], config: configOf('mine'), says: /configured|unchanged/ },
    { name: 'server', args: ['--server-side'], config: configOf('mine'), says: /serverside-applied/ },
    { name: 'client-without', args: [], config: undefined, says: /unchanged/ },
    { name: 'server-without', args: ['--server-side'], config: undefined, says: /serverside-applied/ },
  ];

  test('no call to ECR, no change of data', async () => {
    for (const { name, args, config } of KINDS) await apply(manifestOf(name, config), ...args);
    await cluster.refresh();
    const before = new Map(
      await Promise.all(KINDS.map(async ({ name }) => [name, await get(name)] as const)),
    );
    const calls = cluster.ecr.calls.length;
    const endsAt = Date.now() + 60_000;
    let rounds = 0;
    for (; Date.now() < endsAt; rounds++) {
      await Promise.all(
        KINDS.map(async ({ name, args, config, says }) => {
          expect(await apply(manifestOf(name, config), ...args)).toMatch(says);
          const { data, metadata } = await get(name);
          expect(data?.[SECRET_KEY] === before.get(name)?.data?.[SECRET_KEY], name).toBe(true);
          // Nothing was written, not even to be the same: no watcher hears of it.
          expect(metadata.resourceVersion, name).toBe(before.get(name)?.metadata.resourceVersion);
        }),
      );
      await sleep(3_000);
    }
    expect(rounds).toBeGreaterThan(10);
    expect(cluster.ecr.calls).toHaveLength(calls);
  }, 90_000);

  test.each(['client', 'client-without'])('and kubectl diff is empty: %s', async (name) => {
    const config = KINDS.find((kind) => kind.name === name)?.config;
    const { code, stdout } = await cluster.controlPlane.kubectl(['diff', '-f', '-'], {
      input: manifestOf(name, config),
      mayFail: true,
    });
    expect([code, stdout]).toEqual([0, '']);
  });

  test('after a refresh another manager may apply it, by force, and takes nothing of ours', async () => {
    await cluster.refresh({ force: true });
    const before = await get('server');
    const calls = cluster.ecr.calls.length;
    const args = ['--server-side', '--force-conflicts', '--field-manager=gitops'];
    expect(await apply(manifestOf('server', configOf('mine')), ...args)).toContain('serverside-applied');
    const after = await get('server');
    expect(textOf(after) === textOf(before)).toBe(true);
    expect(after.metadata.annotations?.[ANNOTATION.expiresAt]).toBe(
      before.metadata.annotations?.[ANNOTATION.expiresAt],
    );
    expect(cluster.ecr.calls).toHaveLength(calls);
    expect(outcomesOf(await cluster.refresh({ force: true }))).toMatchObject({ refreshed: 5 });
  });
});
