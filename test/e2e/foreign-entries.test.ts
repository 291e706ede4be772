// Foreign entries (Docker Hub, ghcr.io) on a real cluster, with a real kubectl: they stay byte for byte through a hundred
// refreshes, users can change them at any time, and applying a manifest again calls neither AWS nor changes anything.
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

/** Entries in a form that no serializer writes, with keys that resemble each other and the owned ones. */
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
/** A manifest as users keep it in Git, with this docker config or without any. */
const manifestOf = (name: string, config?: string) =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name, namespace: 'team', labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
    type: SECRET_TYPE,
    ...(config !== undefined && { data: { [SECRET_KEY]: base64(config) } }),
  });
/** Runs kubectl. It may fail. */
const kubectl = async (args: readonly string[], input = '') => {
  const { code, stdout, stderr } = await cluster.controlPlane.kubectl(args, { input, mayFail: true });
  return { code, stdout: stdout.trim(), stderr: stderr.trim() };
};
const apply = (manifest: string, ...more: string[]) => kubectl(['apply', ...more, '-f', '-'], manifest);
const printed = (stdout: string) => ({ code: 0, stdout, stderr: '' });
const get = (name: string) => cluster.admin<SecretObject>('GET', secretPath(`team/${name}`));
const textOf = ({ data }: SecretObject) => Buffer.from(data?.[SECRET_KEY] ?? '', 'base64').toString();
const passwordsOf = (secret: SecretObject): string[] => {
  const { auths } = JSON.parse(textOf(secret));
  return HOSTS.map((host) => auths[host].password);
};
const calls = () => cluster.ecr.calls.length + cluster.ecr.stsCalls.length;

/** Expects the foreign entries as they were written. Only the whitespace between members may differ. */
function expectForeign(secret: SecretObject, password: string): void {
  const members = entries(password).map(([key, text]) => `"${key}":${text},`);
  const before = `{"credHelpers":${CRED_HELPERS},"HttpHeaders":${HTTP_HEADERS},"auths":{${members.join('')}`;
  const own = HOSTS.map((host) => `"${host}":\\{"username":"AWS","password":"[\\w-]+","auth":"[\\w+/=]+"\\}`);
  const text = textOf(secret);
  expect(text.slice(0, before.length)).toBe(before);
  expect(new RegExp(`^${own.join(',')}}}$`).test(text.slice(before.length))).toBe(true);
}

// The webhook starts one call in two seconds for a token, so each refresh takes that long.
describe('thirty refreshes with new tokens', () => {
  /** The ways in which a user changes the password for Docker Hub. */
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

  test('keep every foreign entry byte for byte, and a password that the user changes in between', async () => {
    const observed = HOSTS.map(() => new Set<string>());
    let password = 'old';
    for (const name of NAMES)
      await apply(
        manifestOf(name, documentOf(password)),
        ...(name === 'server-applied' ? ['--server-side'] : []),
      );
    for (let run = 1; run <= 30; run++) {
      if (run === 15) {
        password = 'changed';
        const tokens = passwordsOf(await get('applied'));
        const callsBefore = calls();
        for (const [name, change] of Object.entries(CHANGES)) {
          const verb = { applied: 'configured', 'server-applied': 'serverside-applied' }[name] ?? 'patched';
          expect(await change(documentOf(password))).toEqual(printed(`secret/${name} ${verb}`));
          const secret = await get(name);
          expectForeign(secret, password);
          // The request did not contain the owned entries, and the webhook kept them.
          expect(passwordsOf(secret).join() === tokens.join()).toBe(true);
        }
        expect(calls()).toBe(callsBefore);
      }
      const report = await cluster.refresh({ force: true });
      expect(outcomesOf(report)).toEqual({ refreshed: NAMES.length });
      for (const name of NAMES) {
        const secret = await get(name);
        expectForeign(secret, password);
        passwordsOf(secret).forEach((token, i) => void observed[i]?.add(token));
      }
    }
    expect(observed.map(({ size }) => size)).toEqual([30, 30]);
    // The Secrets of a run share its tokens. The first two calls were made when the Secrets were created.
    expect(cluster.ecr.calls).toHaveLength(62);
  });
});

/** The object without the fields in which the API server records writers and versions. */
const withoutWriters = ({ metadata, ...rest }: SecretObject) => {
  const { managedFields: _, resourceVersion: __, ...others } = metadata as Record<string, unknown>;
  return JSON.stringify({ ...rest, metadata: others });
};
const isSame = (a: SecretObject, b: SecretObject) => withoutWriters(a) === withoutWriters(b);

describe('applying the same manifest every three seconds for a minute', () => {
  const KINDS = [
    { name: 'client', args: [], config: documentOf('mine'), verb: 'configured' },
    { name: 'client-without-data', args: [], config: undefined, verb: 'unchanged' },
    { name: 'server', args: ['--server-side'], config: documentOf('mine'), verb: 'serverside-applied' },
    { name: 'server-without-data', args: ['--server-side'], config: undefined, verb: 'serverside-applied' },
  ];
  const getAll = () => Promise.all(KINDS.map(({ name }) => get(name)));
  const applyAll = () =>
    Promise.all(KINDS.map(({ name, args, config }) => apply(manifestOf(name, config), ...args)));
  const answers = KINDS.map(({ name, verb }) => printed(`secret/${name} ${verb}`));
  const versionsOf = (secrets: SecretObject[]) => secrets.map(({ metadata }) => metadata.resourceVersion);

  test('calls no AWS service, and changes no object', async () => {
    await applyAll();
    await cluster.refresh({ force: true });
    const refreshed = await getAll();
    const callsBefore = calls();
    // If the manifest has data, kubectl's own comparison finds a difference ("configured"). After each refresh, the API
    // server records once in managedFields that this manager wrote last. Nothing else changes.
    expect(await applyAll()).toEqual(answers);
    const before = await getAll();
    expect(before.map((secret, i) => isSame(secret, refreshed[i] ?? secret))).toEqual(KINDS.map(() => true));
    expect(versionsOf(before).slice(1)).toEqual(versionsOf(refreshed).slice(1));

    const startedAt = performance.now();
    for (let round = 1; round <= 20; round++) {
      expect(await applyAll()).toEqual(answers);
      const after = await getAll();
      // The resource versions are equal, so no watcher gets an event.
      expect(versionsOf(after)).toEqual(versionsOf(before));
      expect(after.map((secret, i) => isSame(secret, before[i] ?? secret))).toEqual(KINDS.map(() => true));
      await sleep(Math.max(0, startedAt + round * 3_000 - performance.now()));
    }
    expect(calls()).toBe(callsBefore);
    for (const name of ['client', 'server']) expectForeign(await get(name), 'mine');
  }, 90_000);

  test.each(KINDS)(
    'kubectl diff of $name shows no difference, and calls no AWS service',
    async ({ name, args, config }) => {
      const callsBefore = calls();
      expect(await kubectl(['diff', ...args, '-f', '-'], manifestOf(name, config))).toEqual(printed(''));
      expect(calls()).toBe(callsBefore);
    },
  );

  test('another field manager can take the data over by force, also after a refresh, and the owned entries stay', async () => {
    const gitops = (password: string, ...more: string[]) =>
      apply(
        manifestOf('server', documentOf(password)),
        ...['--server-side', '--field-manager=gitops', ...more],
      );
    await cluster.refresh({ force: true });
    const before = await get('server');
    const callsBefore = calls();
    // Kubernetes assigns a field to the manager whose manifest contains it. Changes by a webhook have no manager.
    const refused = await gitops('mine');
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain(
      'Apply failed with 1 conflict: conflict with "kubectl": .data..dockerconfigjson',
    );
    const versions = new Set<string>();
    for (let round = 0; round < 3; round++) {
      expect(await gitops('mine', '--force-conflicts')).toEqual(printed('secret/server serverside-applied'));
      const after = await get('server');
      expect(isSame(after, before)).toBe(true);
      versions.add(after.metadata.resourceVersion);
    }
    // Only the first request changed the owner of the field.
    expect(versions.size).toBe(1);
    expect(versions).not.toContain(before.metadata.resourceVersion);

    await gitops('theirs', '--force-conflicts');
    expectForeign(await get('server'), 'theirs');
    expect(calls()).toBe(callsBefore);
    const tokens = passwordsOf(await get('server'));
    await cluster.refresh({ force: true });
    // gitops owns the field now, so there is no conflict.
    expect(await gitops('theirs')).toEqual(printed('secret/server serverside-applied'));
    expectForeign(await get('server'), 'theirs');
    expect(passwordsOf(await get('server')).some((token, i) => token === tokens[i])).toBe(false);
  });
});

describe('an exported copy of a Secret', () => {
  const replace = (secret: object) => kubectl(['replace', '-f', '-'], JSON.stringify(secret));
  const exported = async () => ({ apiVersion: 'v1', kind: 'Secret', ...(await get('patched')) });

  test('changes no data when it is put back at once, and calls no AWS service', async () => {
    const copy = await exported();
    const callsBefore = calls();
    expect(await replace(copy)).toEqual(printed('secret/patched replaced'));
    const after = await get('patched');
    // kubectl adds an annotation with the whole manifest, so the metadata differs.
    expect(textOf(after) === textOf(copy)).toBe(true);
    for (const key of Object.values(ANNOTATION))
      expect(after.metadata.annotations?.[key]).toBe(copy.metadata.annotations?.[key]);
    expect(calls()).toBe(callsBefore);
  });

  test('is rejected after a refresh, or leads to new credentials, but never restores the old ones', async () => {
    const copy = await exported();
    await cluster.refresh({ force: true });
    const before = await get('patched');
    const callsBefore = cluster.ecr.calls.length;
    const refused = await replace(copy);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('the object has been modified');
    expect(isSame(await get('patched'), before)).toBe(true);

    // Without a resource version the API server accepts it. Its refresh request differs from the stored one, so the
    // webhook treats it as a new, forced request. The API server calls the webhook before it compares the resource
    // version, so the rejected attempt was such a request too, and both share their tokens.
    const { resourceVersion: _, ...metadata } = copy.metadata;
    expect(await replace({ ...copy, metadata })).toEqual(printed('secret/patched replaced'));
    const after = await get('patched');
    expectForeign(after, 'changed');
    const minted = cluster.ecr.calls.slice(callsBefore).map(({ password }) => password);
    expect(minted.toSorted().join() === passwordsOf(after).toSorted().join()).toBe(true);
  });
});
