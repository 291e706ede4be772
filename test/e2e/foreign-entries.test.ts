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
} from '../functions/real-cluster.ts';

const ACCOUNTS = ['111111111111', '222222222222'];
const HOSTS = ACCOUNTS.map((account) => `${account}.dkr.ecr.eu-central-1.amazonaws.com`);
const POLICY = {
  registries: ACCOUNTS.map((account, i) => ({
    host: HOSTS[i],
    roleArn: `arn:aws:iam::${account}:role/pull`,
    namespaces: ['*'],
  })),
};

/** Entries as nobody's serializer would write them, with keys that are easily taken for one another, or for ours. */
const entries = (password: string): [key: string, text: string][] => [
  [
    'https://index.docker.io/v1/',
    `{ "email":"a@b.c",\t"auth": "${base64(`me:${password}`)}",\n "zz":[1, 2.50,1E+2,12345678901234567890,{"b":null,"a":"\\u00e9\\u2028é"}] }`,
  ],
  ['index.docker.io', '{"auth" :"dHdvOnR3bw=="}'],
  ['docker.io', '{}'],
  ['ghcr.io', '{"password":"ghp_\\u0078\\/y","username":"me"   }'],
  ['https://GHCR.io/v2/', '{"username":"me" , "password":"other", "identitytoken":"\\ud83d\\ude00"}'],
  ['333333333333.dkr.ecr.eu-central-1.amazonaws.com', '{"auth":"QVdTOnN0cmFuZ2Vy" }'],
  [`${HOSTS[0]}/team/app`, '{ "auth":"bmFycm93Om5hcnJvdw==" }'],
];
const CRED_HELPERS = '{ "x.example.com" : "x" }';
const HTTP_HEADERS = '{"User-Agent":"Docker-Client\\/1.0 (\\u006cinux)"}';
const documentOf = (password: string) => {
  const members = entries(password).map(([key, text]) => `  "${key}"  :${text}`);
  return `{\r\n "credHelpers":${CRED_HELPERS},"auths" : {\n${members.join(' ,\n')}\n},\n"HttpHeaders" : ${HTTP_HEADERS} }\n`;
};

let cluster: RealCluster;
beforeAll(async () => {
  cluster = await startRealCluster({ document: POLICY });
  await cluster.createNamespace('team');
});
afterAll(() => cluster?.[Symbol.asyncDispose]());

function base64(text: string): string {
  return Buffer.from(text).toString('base64');
}
/** A manifest as somebody keeps it, with this docker config or without any. */
const manifestOf = (name: string, config?: string) =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name, namespace: 'team', labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
    type: SECRET_TYPE,
    ...(config !== undefined && { data: { [SECRET_KEY]: base64(config) } }),
  });
/** What kubectl says. */
const kubectl = async (args: readonly string[], input = '') => {
  const { code, stdout, stderr } = await cluster.controlPlane.kubectl(args, { input, mayFail: true });
  return { code, stdout: stdout.trim(), stderr: stderr.trim() };
};
const apply = (manifest: string, ...more: string[]) => kubectl(['apply', ...more, '-f', '-'], manifest);
const said = (stdout: string) => ({ code: 0, stdout, stderr: '' });
const get = (name: string) => cluster.admin<SecretObject>('GET', secretPath(`team/${name}`));
const textOf = ({ data }: SecretObject) => Buffer.from(data?.[SECRET_KEY] ?? '', 'base64').toString();
const passwordsOf = (secret: SecretObject): string[] => {
  const { auths } = JSON.parse(textOf(secret));
  return HOSTS.map((host) => auths[host].password);
};
const calls = () => cluster.ecr.calls.length + cluster.ecr.stsCalls.length;

/** All that is not ours is there as it was written; only what lies between the members is the webhook's. */
function expectForeign(secret: SecretObject, password: string): void {
  const members = entries(password).map(([key, text]) => `"${key}":${text},`);
  const before = `{"credHelpers":${CRED_HELPERS},"HttpHeaders":${HTTP_HEADERS},"auths":{${members.join('')}`;
  const own = HOSTS.map((host) => `"${host}":\\{"username":"AWS","password":"[\\w-]+","auth":"[\\w+/=]+"\\}`);
  const text = textOf(secret);
  expect(text.slice(0, before.length)).toBe(before);
  expect(new RegExp(`^${own.join(',')}}}$`).test(text.slice(before.length))).toBe(true);
}

describe('a hundred refreshes, each with new tokens', () => {
  /** Somebody who has a new password for Docker Hub. @returns what kubectl says */
  const CHANGES = {
    applied: (config: string) => apply(manifestOf('applied', config)),
    'server-applied': (config: string) => apply(manifestOf('server-applied', config), '--server-side'),
    patched: (config: string) =>
      kubectl([
        ...['patch', 'secret', 'patched', '--namespace', 'team', '--type=merge'],
        ...['-p', JSON.stringify({ stringData: { [SECRET_KEY]: config } })],
      ]),
  };
  const NAMES = Object.keys(CHANGES);

  test('every entry stays byte for byte, and a password that is changed in between sticks', async () => {
    const seen = HOSTS.map(() => new Set<string>());
    let password = 'old';
    for (const name of NAMES)
      await apply(
        manifestOf(name, documentOf(password)),
        ...(name === 'server-applied' ? ['--server-side'] : []),
      );
    for (let run = 1; run <= 100; run++) {
      if (run === 50) {
        password = 'changed';
        const tokens = passwordsOf(await get('applied'));
        const callsBefore = calls();
        for (const [name, change] of Object.entries(CHANGES)) {
          const verb = { applied: 'configured', 'server-applied': 'serverside-applied' }[name] ?? 'patched';
          expect(await change(documentOf(password))).toEqual(said(`secret/${name} ${verb}`));
          const secret = await get(name);
          expectForeign(secret, password);
          // Ours are not in what was sent, and not gone.
          expect(passwordsOf(secret).join() === tokens.join()).toBe(true);
        }
        expect(calls()).toBe(callsBefore);
      }
      const report = await cluster.refresh({ force: true });
      expect(outcomesOf(report)).toEqual({ refreshed: NAMES.length });
      for (const name of NAMES) {
        const secret = await get(name);
        expectForeign(secret, password);
        passwordsOf(secret).forEach((token, i) => void seen[i]?.add(token));
      }
    }
    expect(seen.map(({ size }) => size)).toEqual([100, 100]);
    // The Secrets of a run share its tokens; the two before the first run are the CREATEs'.
    expect(cluster.ecr.calls).toHaveLength(202);
  }, 120_000);
});

/** Without what the API server notes of who wrote when. */
const withoutNotes = ({ metadata, ...rest }: SecretObject) => {
  const { managedFields: _, resourceVersion: __, ...others } = metadata as Record<string, unknown>;
  return JSON.stringify({ ...rest, metadata: others });
};
const isSame = (a: SecretObject, b: SecretObject) => withoutNotes(a) === withoutNotes(b);

describe('the same manifest, every three seconds for a minute', () => {
  const KINDS = [
    { name: 'client', args: [], config: documentOf('mine'), verb: 'configured' },
    { name: 'client-without-data', args: [], config: undefined, verb: 'unchanged' },
    { name: 'server', args: ['--server-side'], config: documentOf('mine'), verb: 'serverside-applied' },
    { name: 'server-without-data', args: ['--server-side'], config: undefined, verb: 'serverside-applied' },
  ];
  const getAll = () => Promise.all(KINDS.map(({ name }) => get(name)));
  const applyAll = () =>
    Promise.all(KINDS.map(({ name, args, config }) => apply(manifestOf(name, config), ...args)));
  const answers = KINDS.map(({ name, verb }) => said(`secret/${name} ${verb}`));
  const versionsOf = (secrets: SecretObject[]) => secrets.map(({ metadata }) => metadata.resourceVersion);

  test('no call to AWS, and nothing is written', async () => {
    await applyAll();
    await cluster.refresh({ force: true });
    const refreshed = await getAll();
    const callsBefore = calls();
    // Where the manifest has data, kubectl's own comparison finds a difference ("configured"), and the API server notes
    // in managedFields, once after each refresh, that this manager was here last. Nothing else.
    expect(await applyAll()).toEqual(answers);
    const before = await getAll();
    expect(before.map((secret, i) => isSame(secret, refreshed[i] ?? secret))).toEqual(KINDS.map(() => true));
    expect(versionsOf(before).slice(1)).toEqual(versionsOf(refreshed).slice(1));

    const startedAt = performance.now();
    for (let round = 1; round <= 20; round++) {
      expect(await applyAll()).toEqual(answers);
      const after = await getAll();
      // No watcher hears of anything.
      expect(versionsOf(after)).toEqual(versionsOf(before));
      expect(after.map((secret, i) => isSame(secret, before[i] ?? secret))).toEqual(KINDS.map(() => true));
      await sleep(Math.max(0, startedAt + round * 3_000 - performance.now()));
    }
    expect(calls()).toBe(callsBefore);
    for (const name of ['client', 'server']) expectForeign(await get(name), 'mine');
  }, 90_000);

  test.each(KINDS)('kubectl diff shows nothing, and costs nothing: $name', async ({ name, args, config }) => {
    const callsBefore = calls();
    expect(await kubectl(['diff', ...args, '-f', '-'], manifestOf(name, config))).toEqual(said(''));
    expect(calls()).toBe(callsBefore);
  });

  test('another manager may take it over by force, after a refresh too, and takes nothing of ours', async () => {
    const gitops = (password: string, ...more: string[]) =>
      apply(
        manifestOf('server', documentOf(password)),
        ...['--server-side', '--field-manager=gitops', ...more],
      );
    await cluster.refresh({ force: true });
    const before = await get('server');
    const callsBefore = calls();
    // Kubernetes' own rule: the field is whose manifest names it. The webhook's changes are nobody's.
    const refused = await gitops('mine');
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain(
      'Apply failed with 1 conflict: conflict with "kubectl": .data..dockerconfigjson',
    );
    const versions = new Set<string>();
    for (let round = 0; round < 3; round++) {
      expect(await gitops('mine', '--force-conflicts')).toEqual(said('secret/server serverside-applied'));
      const after = await get('server');
      expect(isSame(after, before)).toBe(true);
      versions.add(after.metadata.resourceVersion);
    }
    // The first time the field got another owner.
    expect(versions.size).toBe(1);
    expect(versions).not.toContain(before.metadata.resourceVersion);

    await gitops('theirs', '--force-conflicts');
    expectForeign(await get('server'), 'theirs');
    expect(calls()).toBe(callsBefore);
    const tokens = passwordsOf(await get('server'));
    await cluster.refresh({ force: true });
    // It owns the field now, so that it meets no conflict.
    expect(await gitops('theirs')).toEqual(said('secret/server serverside-applied'));
    expectForeign(await get('server'), 'theirs');
    expect(passwordsOf(await get('server')).some((token, i) => token === tokens[i])).toBe(false);
  });
});

describe('an exported copy', () => {
  const replace = (secret: object) => kubectl(['replace', '-f', '-'], JSON.stringify(secret));
  const exported = async () => ({ apiVersion: 'v1', kind: 'Secret', ...(await get('patched')) });

  test('put back at once, it changes no data and costs nothing', async () => {
    const copy = await exported();
    const callsBefore = calls();
    expect(await replace(copy)).toEqual(said('secret/patched replaced'));
    const after = await get('patched');
    // kubectl writes an annotation of its own, with all that it was given in it.
    expect(textOf(after) === textOf(copy)).toBe(true);
    for (const key of Object.values(ANNOTATION))
      expect(after.metadata.annotations?.[key]).toBe(copy.metadata.annotations?.[key]);
    expect(calls()).toBe(callsBefore);
  });

  test('put back after a refresh, it is refused, or brings new credentials: never those in it', async () => {
    const copy = await exported();
    await cluster.refresh({ force: true });
    const before = await get('patched');
    const callsBefore = cluster.ecr.calls.length;
    const refused = await replace(copy);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('the object has been modified');
    expect(isSame(await get('patched'), before)).toBe(true);

    // Without a version nothing stops it. Its mark is not the stored one, which makes it a request, and a forced one.
    // The API server asks the webhook before it looks at the version: both attempts are that request, and share tokens.
    const { resourceVersion: _, ...metadata } = copy.metadata;
    expect(await replace({ ...copy, metadata })).toEqual(said('secret/patched replaced'));
    const after = await get('patched');
    expectForeign(after, 'changed');
    const minted = cluster.ecr.calls.slice(callsBefore).map(({ password }) => password);
    expect(minted.toSorted().join() === passwordsOf(after).toSorted().join()).toBe(true);
  });
});
