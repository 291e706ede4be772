// One of ten roles is broken for twelve virtual hours, on a real cluster: the other registries never expire, the broken
// one is named wherever somebody may look, and it heals by itself. Then entitlements are taken away.
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
  until,
} from '../../real-cluster.ts';

const MINUTE = 60_000;
/** The hours that it is broken, the last one with nothing left of its credentials. */
const HOURS = 13;
const NUMBERS = Array.from({ length: 10 }, (_, index) => index);
const hostOf = (index: number) => `${111_111_111_110 + index}.dkr.ecr.eu-central-1.amazonaws.com`;
const roleOf = (index: number) => `arn:aws:iam::${111_111_111_110 + index}:role/pull`;
const BROKEN = 3;
const WELL = NUMBERS.filter((index) => index !== BROKEN);
const CAUSE = `the role ${roleOf(BROKEN)} cannot be assumed: AccessDenied`;
const FOREIGN = { 'registry.example.com': { auth: 'Ym90Omh1bnRlcjI=' } };

const TEAMS = ['team-a', 'team-b'];
const WIDE = TEAMS.flatMap((namespace) => ['applied', 'one', 'two'].map((name) => `${namespace}/${name}`));
/** A Secret that has nothing to do with the broken one has nothing to do with its failures either. */
const NARROW = { path: 'team-b/narrow', numbers: [1, 2] };
const numbersOf = (path: string) => (path === NARROW.path ? NARROW.numbers : NUMBERS);

const registriesFor = (namespacesOf: (index: number) => string[]) => ({
  registries: NUMBERS.map((index) => {
    return { host: hostOf(index), roleArn: roleOf(index), namespaces: namespacesOf(index) };
  }),
});

/** A manifest as a person keeps it. */
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
/** When a registry's credentials expire, by its password: what was really minted, whatever annotations say. */
const expiryOf = (secret: SecretObject, index: number): number | undefined => {
  const password = authsOf(secret)[hostOf(index)]?.password ?? 'none';
  return cluster.ecr.calls.find((call) => call.password === password && call.role === roleOf(index))
    ?.expiresAt;
};
/** Each Secret has credentials of those of its registries, for longer than that. */
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

describe('a role is broken for twelve hours', () => {
  const NONE = NUMBERS.map(() => 0);
  const ONLY_IT = NUMBERS.map((index) => (index === BROKEN ? 1 : 0));
  let brokenUntil = 0;
  let oldEntry = '';
  let callsBefore = 0;
  let stsCallsBefore = 0;
  let failedRuns = 0;
  let peoplesChanges = 0;

  test('all is well before', async () => {
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

  /** What everybody is told at the moment, as a pattern: the cache has the token that is stored already, or none. */
  const warning = () => {
    const kind = clock.now() < brokenUntil ? '(kept|cached token)' : 'no credentials';
    return `${hostOf(BROKEN)}: ${kind} \\(aws-role-denied\\): .*${CAUSE}`;
  };
  /** Somebody changes something else of a Secret: it goes through, says what is wrong, and costs next to nothing. */
  async function peopleChange(hour: number): Promise<void> {
    // The webhook has forgotten the failure of the run by then.
    clock.advance(MINUTE);
    const before = await cluster.secrets();
    const { calls, stsCalls } = cluster.ecr;
    const [ecrCalls, assumptions] = [calls.length, stsCalls.length];
    const note = `example.com/hour=${hour}`;
    const changes = [
      await kubectl(['annotate', '--overwrite', 'secret', 'one', '--namespace', 'team-a', note]),
      await kubectl(['apply', '-f', '-'], manifestOf('team-b/applied', { 'example.com/hour': `${hour}` })),
    ];
    peoplesChanges += changes.length;
    for (const { stdout, stderr } of changes) {
      expect(stdout).toMatch(/secret\/one annotated|secret\/applied configured/);
      // kubectl breaks its lines.
      const said = stderr.replaceAll(/\s+/g, ' ');
      expect(said).toMatch(new RegExp(`Warning: ${warning()}`));
      expect(said.match(/Warning: /g)).toHaveLength(1);
    }
    for (const [path, { data }] of await cluster.secrets())
      expect(data?.[SECRET_KEY] === before.get(path)?.data?.[SECRET_KEY], path).toBe(true);
    expect(calls.length).toBe(ecrCalls);
    expect(stsCalls.length - assumptions).toBeLessThanOrEqual(changes.length);
  }

  test('hour by hour: nine never expire, the broken one is named from when it is due', async () => {
    let firstToldAt: number | undefined;
    let refusals = 0;
    for (let hour = 1; hour <= HOURS; hour++) {
      clock.advance(HOUR);
      // Half of a token's life, less the hour since the last run.
      expectUnexpired(await cluster.secrets(), WELL, 5 * HOUR);

      const report = await cluster.refresh();

      const now = clock.now();
      const secrets = await cluster.secrets();
      expectUnexpired(secrets, WELL, 6 * HOUR);
      for (const [path, secret] of secrets) {
        expect(authsOf(secret)).toMatchObject(FOREIGN);
        const hasOldEntry = now < brokenUntil && path !== NARROW.path;
        expect(textOf(secret).includes(oldEntry), `${path} at ${hour} h`).toBe(hasOldEntry);
        expect(hostOf(BROKEN) in authsOf(secret), `${path} at ${hour} h`).toBe(hasOldEntry);
      }
      expect(report.served).toBe(true);
      // What opens nothing any more is not passed over: it is the figure that the alarm looks at.
      expect(report.soonestExpiry).toBeLessThanOrEqual(brokenUntil);
      if (report.results.length === 0) {
        expect([report.failed, await failing()]).toEqual([false, NONE]);
        continue;
      }
      firstToldAt ??= hour;
      failedRuns += 1;
      expect(report.failed).toBe(true);
      expect(namesOf(report, 'partial')).toEqual(WIDE);
      for (const { reason } of resultsOf(report, 'partial'))
        expect(reason).toMatch(new RegExp(`^${warning()}[^;]*$`));
      const others = namesOf(report, 'refreshed');
      expect(others).toEqual(others.length > 0 ? [NARROW.path] : []);
      expect(await failing()).toEqual(ONLY_IT);
      expect(await noIdentity()).toBeGreaterThan(refusals);
      refusals = await noIdentity();

      if (hour === 8 || hour === HOURS) await peopleChange(hour);
    }
    // Six hours before the first pull fails; up to an hour more is the cluster's jitter.
    expect(firstToldAt).toBeGreaterThanOrEqual(5);
    expect(firstToldAt).toBeLessThanOrEqual(6);
  }, 120_000);

  test('nobody was asked more than it takes', async () => {
    const asked = cluster.ecr.calls.slice(callsBefore);
    const assumed = Map.groupBy(cluster.ecr.stsCalls.slice(stsCallsBefore), ({ ok }) => ok);
    // A run's requests share one token of each registry, and one refusal.
    expect(asked).toHaveLength(failedRuns * WELL.length);
    expect(new Set(asked.map(({ role }) => role))).toEqual(new Set(WELL.map(roleOf)));
    expect(assumed.get(true)?.length).toBeLessThanOrEqual(asked.length);
    const refused = assumed.get(false) ?? [];
    expect(refused.filter(({ role }) => role !== roleOf(BROKEN))).toEqual([]);
    expect(refused.length).toBeLessThanOrEqual(failedRuns + peoplesChanges);
    expect(await noIdentity()).toBe(refused.length);
  });

  test('the log has it for every Secret, as a warning', () => {
    const lines = cluster.webhook.program.log().split('\n').filter(Boolean);
    const warned = lines
      .map((line) => JSON.parse(line) as { secret: string; warnings?: string[] })
      .filter(({ warnings = [] }) => warnings.some((warning) => warning.includes(CAUSE)));
    expect([...new Set(warned.map(({ secret }) => secret))].sort()).toEqual(WIDE);
    expect(warned).toHaveLength(failedRuns * WIDE.length + peoplesChanges);
  });

  test('mended, the next run brings it back, and nothing was restarted', async () => {
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

describe('an entitlement is taken away', () => {
  const inTeam = (team: string) => (path: string) => path.startsWith(`${team}/`);
  const removed = (index: number) => `${hostOf(index)}: removed: the namespace team-a is not entitled to it`;
  /** The chart's values changed, and the kubelet has brought it. */
  const use = async (document: object) => {
    const said = () => cluster.webhook.program.log().match(/new policy in use/g)?.length ?? 0;
    const before = said();
    await cluster.webhook.upgrade(document);
    await cluster.webhook.syncVolumes();
    await until(async () => said() > before);
  };

  test('it leaves at the next run, and nothing else does', async () => {
    await use(registriesFor((index) => (index === BROKEN ? ['team-b'] : ['*'])));
    clock.advance(7 * HOUR);
    const report = await cluster.refresh();
    expect(outcomesOf(report)).toEqual({ refreshed: WIDE.length + 1 });
    for (const path of WIDE) {
      const numbers = inTeam('team-a')(path) ? WELL : NUMBERS;
      const auths = authsOf(await stored(path));
      expect(Object.keys(auths).sort()).toEqual([...numbers.map(hostOf), ...Object.keys(FOREIGN)].sort());
      expect(auths).toMatchObject(FOREIGN);
    }
    expect(cluster.webhook.program.log()).toContain(removed(BROKEN));
  });

  test('who loses everything is told so once, is refused from then on, and keeps what is not ours', async () => {
    await use(registriesFor(() => ['team-b']));
    clock.advance(7 * HOUR);
    const first = await cluster.refresh();
    expect(namesOf(first, 'partial')).toEqual(WIDE.filter(inTeam('team-a')));
    for (const { reason } of resultsOf(first, 'partial')) expect(reason).toBe(WELL.map(removed).join('; '));
    expect(resultsOf(first, 'refreshed')).toHaveLength(WIDE.filter(inTeam('team-b')).length + 1);

    for (const _ of [1, 2]) {
      clock.advance(HOUR);
      const report = await cluster.refresh();
      expect([report.failed, outcomesOf(report)]).toEqual([true, { refused: 3 }]);
      for (const { reason } of report.results) {
        expect(reason).toContain('HTTP 403');
        expect(reason).toContain('The namespace team-a is entitled to no registry');
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
