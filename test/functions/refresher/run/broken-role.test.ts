// Tests a real cluster while one of ten roles cannot be assumed for twelve virtual hours: the credentials of the other
// registries never expire, the reports name the broken one, and it recovers without a restart. Then the policy takes
// entitlements away.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, SECRET_TYPE } from '../../../../contract/names.ts';
import type { ClusterReport } from '../../../../functions/refresher/run/cluster-report.ts';
import { virtualClock } from '../../../virtual-clock.ts';
import { sample } from '../../../webhook/ask.ts';
import {
  HOUR,
  outcomesOf,
  type RealCluster,
  type SecretObject,
  startRealCluster,
} from '../../real-cluster.ts';

const MINUTE = 60_000;
/** The hours for which the role is broken; its credentials have expired in the last one. */
const HOURS = 13;
const NUMBERS = Array.from({ length: 10 }, (_, index) => index);
const hostOf = (index: number) => `${111_111_111_110 + index}.dkr.ecr.eu-central-1.amazonaws.com`;
const roleOf = (index: number) => `arn:aws:iam::${111_111_111_110 + index}:role/pull`;
const BROKEN = 3;
const WORKING = NUMBERS.filter((index) => index !== BROKEN);
const CAUSE = `the role ${roleOf(BROKEN)} cannot be assumed: AccessDenied`;
const FOREIGN = { 'registry.example.com': { auth: 'Ym90Omh1bnRlcjI=' } };

const TEAMS = ['team-a', 'team-b'];
const WIDE = TEAMS.flatMap((namespace) => ['applied', 'one', 'two'].map((name) => `${namespace}/${name}`));
/** A Secret without the broken registry, which must not be affected. */
const NARROW = { path: 'team-b/narrow', numbers: [1, 2] };
const numbersOf = (path: string) => (path === NARROW.path ? NARROW.numbers : NUMBERS);

const registriesFor = (namespacesOf: (index: number) => string[]) => ({
  registries: NUMBERS.map((index) => {
    return { host: hostOf(index), roleArn: roleOf(index), namespaces: namespacesOf(index) };
  }),
});

/** A manifest as users apply it. */
const manifestOf = (path: string, annotations: object = {}) => {
  const [namespace, name] = path.split('/');
  const labels = { [SECRET_LABEL.key]: SECRET_LABEL.value };
  const data = { [SECRET_KEY]: Buffer.from(JSON.stringify({ auths: FOREIGN })).toString('base64') };
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name, namespace, labels, annotations },
    type: SECRET_TYPE,
    data,
  });
};

const dir = mkdtempSync(join(tmpdir(), 'ecr-anywhere-clock-'));
const clock = virtualClock(join(dir, 'clock'));
let cluster: RealCluster;
let pid = 0;

const kubectl = (args: readonly string[], input?: string) =>
  cluster.controlPlane.kubectl(args, input === undefined ? {} : { input });

beforeAll(async () => {
  cluster = await startRealCluster({ clock, document: registriesFor(() => ['*']) });
  pid = cluster.webhook.program.pid;
  await Promise.all(TEAMS.map((name) => cluster.createNamespace(name)));
  const only = { [ANNOTATION.only]: NARROW.numbers.map(hostOf).join(',') };
  for (const path of [...WIDE, NARROW.path])
    await kubectl(['apply', '-f', '-'], manifestOf(path, path === NARROW.path ? only : {}));
});
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true, force: true });
});

const textOf = ({ data }: SecretObject) => Buffer.from(data?.[SECRET_KEY] ?? '', 'base64').toString();
const authsOf = (secret: SecretObject) =>
  JSON.parse(textOf(secret)).auths as Record<string, { password?: string }>;
/** When a registry's credentials expire, by the password that ECR issued, not by the annotations. */
const expiryOf = (secret: SecretObject, index: number): number | undefined => {
  const password = authsOf(secret)[hostOf(index)]?.password ?? 'none';
  return cluster.ecr.calls.find((call) => call.password === password && call.role === roleOf(index))
    ?.expiresAt;
};
/** Expects the credentials of these registries to last longer than the margin, in every Secret that has them. */
const expectUnexpired = (secrets: ReadonlyMap<string, SecretObject>, numbers: number[], margin: number) => {
  for (const [path, secret] of secrets)
    for (const index of numbersOf(path).filter((number) => numbers.includes(number)))
      expect(expiryOf(secret, index), path).toBeGreaterThan(clock.now() + margin);
};
/** The values of `registry_failing`, by the number of the registry. */
const failing = async () => {
  const metrics = await cluster.webhook.metrics();
  return NUMBERS.map((index) =>
    sample(metrics, 'ecr_anywhere_registry_failing', { registry: hostOf(index) }),
  );
};
const noIdentity = async () =>
  sample(await cluster.webhook.metrics(), 'ecr_anywhere_ecr_calls_total', { result: 'no-identity' });
const stored = async (path: string) => (await cluster.secrets()).get(path) ?? expect.fail(`no ${path}`);
const resultsOf = ({ results }: ClusterReport, outcome: string) =>
  results.filter((result) => result.outcome === outcome);
const namesOf = (report: ClusterReport, outcome: string) =>
  resultsOf(report, outcome)
    .map(({ secret }) => secret)
    .sort();

describe('while a role is broken for twelve hours', () => {
  const NONE = NUMBERS.map(() => 0);
  const ONLY_BROKEN = NUMBERS.map((index) => (index === BROKEN ? 1 : 0));
  let brokenUntil = 0;
  let oldEntry = '';
  let callsBefore = 0;
  let stsCallsBefore = 0;
  let failedRuns = 0;
  let userChanges = 0;

  test('all registries work before', async () => {
    const secrets = await cluster.secrets();
    expect([...secrets.keys()].sort()).toEqual([...WIDE, NARROW.path].sort());
    expectUnexpired(secrets, NUMBERS, 11 * HOUR);
    const one = await stored('team-a/one');
    brokenUntil = expiryOf(one, BROKEN) ?? 0;
    oldEntry = `"${hostOf(BROKEN)}":${JSON.stringify(authsOf(one)[hostOf(BROKEN)])}`;
    expect(await failing()).toEqual(NONE);
    cluster.ecr.settings.roles[roleOf(BROKEN)] = { denied: true };
    callsBefore = cluster.ecr.calls.length;
    stsCallsBefore = cluster.ecr.stsCalls.length;
  });

  /** The current warning, as a pattern: the webhook keeps a valid entry or token, or has none. */
  const warning = () => {
    const kind = clock.now() < brokenUntil ? '(kept|cached token)' : 'no credentials';
    return `${hostOf(BROKEN)}: ${kind} \\(aws-role-denied\\): .*${CAUSE}`;
  };
  /** Expects that a user's change of something else succeeds with a warning, and with few requests to AWS. */
  async function changeAsUser(hour: number): Promise<void> {
    // By then, the webhook no longer caches the failure of the run.
    clock.advance(MINUTE);
    const before = await cluster.secrets();
    const { calls, stsCalls } = cluster.ecr;
    const [ecrCalls, assumptions] = [calls.length, stsCalls.length];
    const note = `example.com/hour=${hour}`;
    const changes = [
      await kubectl(['annotate', '--overwrite', 'secret', 'one', '--namespace', 'team-a', note]),
      await kubectl(['apply', '-f', '-'], manifestOf('team-b/applied', { 'example.com/hour': `${hour}` })),
    ];
    userChanges += changes.length;
    for (const { stdout, stderr } of changes) {
      expect(stdout).toMatch(/secret\/one annotated|secret\/applied configured/);
      // kubectl wraps its lines.
      const output = stderr.replaceAll(/\s+/g, ' ');
      expect(output).toMatch(new RegExp(`Warning: ${warning()}`));
      expect(output.match(/Warning: /g)).toHaveLength(1);
    }
    for (const [path, { data }] of await cluster.secrets())
      expect(data?.[SECRET_KEY] === before.get(path)?.data?.[SECRET_KEY], path).toBe(true);
    expect(calls.length).toBe(ecrCalls);
    expect(stsCalls.length - assumptions).toBeLessThanOrEqual(changes.length);
  }

  test('only the broken registry expires, and reports name it from the hour when it is due', async () => {
    let firstReportedAt: number | undefined;
    let refusals = 0;
    for (let hour = 1; hour <= HOURS; hour++) {
      clock.advance(HOUR);
      // Half of a token's lifetime, less the hour since the last run.
      expectUnexpired(await cluster.secrets(), WORKING, 5 * HOUR);

      const report = await cluster.refresh();

      const now = clock.now();
      const secrets = await cluster.secrets();
      expectUnexpired(secrets, WORKING, 6 * HOUR);
      for (const [path, secret] of secrets) {
        expect(authsOf(secret)).toMatchObject(FOREIGN);
        const hasOldEntry = now < brokenUntil && path !== NARROW.path;
        expect(textOf(secret).includes(oldEntry), `${path} at ${hour} h`).toBe(hasOldEntry);
        expect(hostOf(BROKEN) in authsOf(secret), `${path} at ${hour} h`).toBe(hasOldEntry);
      }
      expect(report.served).toBe(true);
      // An expired entry counts, because the alarm depends on this value.
      expect(report.soonestExpiry).toBeLessThanOrEqual(brokenUntil);
      if (report.results.length === 0) {
        expect([report.failed, await failing()]).toEqual([false, NONE]);
        continue;
      }
      firstReportedAt ??= hour;
      failedRuns += 1;
      expect(report.failed).toBe(true);
      expect(namesOf(report, 'partial')).toEqual(WIDE);
      for (const { reason, registries } of resultsOf(report, 'partial')) {
        expect(reason).toMatch(new RegExp(`^${warning()}[^;]*$`));
        expect(registries).toEqual([hostOf(BROKEN)]);
      }
      const others = namesOf(report, 'refreshed');
      expect(others).toEqual(others.length > 0 ? [NARROW.path] : []);
      expect(await failing()).toEqual(ONLY_BROKEN);
      expect(await noIdentity()).toBeGreaterThan(refusals);
      refusals = await noIdentity();

      if (hour === 8 || hour === HOURS) await changeAsUser(hour);
    }
    // Six hours before the first pull fails, and up to one hour earlier by the cluster's jitter.
    expect(firstReportedAt).toBeGreaterThanOrEqual(5);
    expect(firstReportedAt).toBeLessThanOrEqual(6);
  }, 120_000);

  test('makes one call per registry and run', async () => {
    const issued = cluster.ecr.calls.slice(callsBefore);
    const assumed = Map.groupBy(cluster.ecr.stsCalls.slice(stsCallsBefore), ({ ok }) => ok);
    // The requests of a run share one token of each registry, and one failure.
    expect(issued).toHaveLength(failedRuns * WORKING.length);
    expect(new Set(issued.map(({ role }) => role))).toEqual(new Set(WORKING.map(roleOf)));
    expect(assumed.get(true)?.length).toBeLessThanOrEqual(issued.length);
    const refused = assumed.get(false) ?? [];
    expect(refused.filter(({ role }) => role !== roleOf(BROKEN))).toEqual([]);
    expect(refused.length).toBeLessThanOrEqual(failedRuns + userChanges);
    expect(await noIdentity()).toBe(refused.length);
  });

  test('logs a warning for every affected Secret', async () => {
    const warned = () =>
      cluster.webhook.program
        .log()
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as { secret: string; warnings?: string[] })
        .filter(({ warnings = [] }) => warnings.some((warning) => warning.includes(CAUSE)));
    await expect.poll(() => warned().length).toBe(failedRuns * WIDE.length + userChanges);
    expect([...new Set(warned().map(({ secret }) => secret))].sort()).toEqual(WIDE);
  });

  test('the next run after the repair refreshes it without a restart', async () => {
    cluster.ecr.settings.roles[roleOf(BROKEN)] = { denied: false };
    clock.advance(HOUR);
    const report = await cluster.refresh();
    expect(report).toMatchObject({ served: true, failed: false });
    expect(namesOf(report, 'refreshed')).toEqual(expect.arrayContaining(WIDE));
    const secrets = await cluster.secrets();
    secrets.delete(NARROW.path);
    expectUnexpired(secrets, NUMBERS, 11 * HOUR);
    expect(report.soonestExpiry).toBeGreaterThan(clock.now() + 6 * HOUR);
    expect(await failing()).toEqual(NONE);
    expect(cluster.webhook.program).toMatchObject({ pid });
  });
});

describe('after the policy takes entitlements away', () => {
  const inTeam = (team: string) => (path: string) => path.startsWith(`${team}/`);
  const removed = (index: number) => `${hostOf(index)}: removed: the namespace team-a is not entitled to it`;
  /** Changes the chart's values, and waits until the webhook uses the new policy. */
  const use = async (document: object) => {
    const loaded = () => cluster.webhook.program.log().match(/new policy in use/g)?.length ?? 0;
    const before = loaded();
    await cluster.webhook.upgrade(document);
    await cluster.webhook.syncVolumes();
    await expect.poll(loaded, { timeout: 20_000, interval: 50 }).toBeGreaterThan(before);
  };

  test('removes only that entry at the next run', async () => {
    await use(registriesFor((index) => (index === BROKEN ? ['team-b'] : ['*'])));
    clock.advance(7 * HOUR);
    const report = await cluster.refresh();
    expect(outcomesOf(report)).toEqual({ refreshed: WIDE.length + 1 });
    for (const path of WIDE) {
      const numbers = inTeam('team-a')(path) ? WORKING : NUMBERS;
      const auths = authsOf(await stored(path));
      expect(Object.keys(auths).sort()).toEqual([...numbers.map(hostOf), ...Object.keys(FOREIGN)].sort());
      expect(auths).toMatchObject(FOREIGN);
    }
    await expect.poll(() => cluster.webhook.program.log()).toContain(removed(BROKEN));
  });

  test('reports a lost entitlement once as partial, then refuses, and keeps foreign entries', async () => {
    await use(registriesFor(() => ['team-b']));
    clock.advance(7 * HOUR);
    const first = await cluster.refresh();
    expect(namesOf(first, 'partial')).toEqual(WIDE.filter(inTeam('team-a')));
    for (const { reason, registries } of resultsOf(first, 'partial')) {
      expect(reason).toBe(WORKING.map(removed).join('; '));
      expect(registries).toEqual(WORKING.map(hostOf));
    }
    expect(resultsOf(first, 'refreshed')).toHaveLength(WIDE.filter(inTeam('team-b')).length + 1);

    for (const _ of [1, 2]) {
      clock.advance(HOUR);
      const report = await cluster.refresh();
      expect([report.failed, outcomesOf(report)]).toEqual([true, { refused: 3 }]);
      for (const { code, causes } of report.results) {
        expect(code).toBe('webhook-denied');
        expect(causes).toMatchObject([{ reason: 'not-entitled' }]);
      }
    }
    for (const path of WIDE.filter(inTeam('team-a'))) {
      const left = await stored(path);
      expect(authsOf(left)).toEqual(FOREIGN);
      expect(left.metadata.annotations).not.toHaveProperty([ANNOTATION.expiresAt]);
    }
    await kubectl(['annotate', 'secret', 'one', '--namespace', 'team-a', 'example.com/owner=alice']);
    await expect(cluster.createSecrets([{ namespace: 'team-a', name: 'new' }])).rejects.toThrow(
      /: 403: .*The namespace team-a is entitled to no registry\. Add it to the policy/,
    );
  });
});
