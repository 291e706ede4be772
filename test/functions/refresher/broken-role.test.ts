// One of ten roles is broken for twelve virtual hours, on a real cluster: the others' registries never expire, the
// broken one is named wherever somebody may look, and it heals by itself. Then entitlements are taken away.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ANNOTATION, SECRET_KEY } from '../../../contract/names.ts';
import type { ClusterReport } from '../../../functions/refresher/cluster.ts';
import { virtualClock } from '../../virtual-clock.ts';
import { sample } from '../../webhook/ask.ts';
import {
  HOUR,
  outcomesOf,
  type RealCluster,
  type SecretObject,
  startRealCluster,
  until,
} from '../real-cluster.ts';

const TEAMS = ['team-a', 'team-b'];
const SECRETS = TEAMS.flatMap((namespace) => ['one', 'two', 'three'].map((name) => ({ namespace, name })));
const NUMBERS = Array.from({ length: 10 }, (_, index) => index);
const hostOf = (index: number) => `${111_111_111_110 + index}.dkr.ecr.eu-central-1.amazonaws.com`;
const roleOf = (index: number) => `arn:aws:iam::${111_111_111_110 + index}:role/pull`;
const BROKEN = 3;
const WELL = NUMBERS.filter((index) => index !== BROKEN);
const CAUSE = `the role ${roleOf(BROKEN)} cannot be assumed: AccessDenied`;
const FOREIGN = { 'registry.example.com': { auth: 'Ym90Omh1bnRlcjI=' } };

const registriesFor = (namespacesOf: (index: number) => string[]) => ({
  registries: NUMBERS.map((index) => ({
    host: hostOf(index),
    roleArn: roleOf(index),
    namespaces: namespacesOf(index),
  })),
});

const dir = mkdtempSync(join(tmpdir(), 'ecr-anywhere-clock-'));
const clock = virtualClock(join(dir, 'clock'));
let cluster: RealCluster;

beforeAll(async () => {
  cluster = await startRealCluster({ clock, document: registriesFor(() => ['*']) });
  await Promise.all(TEAMS.map((name) => cluster.createNamespace(name)));
  await cluster.createSecrets(SECRETS.map((secret) => ({ ...secret, config: { auths: FOREIGN } })));
});
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true, force: true });
});

type Auths = Record<string, { password?: string; auth: string }>;
const authsOf = ({ data }: SecretObject): Auths =>
  JSON.parse(Buffer.from(data?.[SECRET_KEY] ?? '', 'base64').toString()).auths;
/** When a registry's credentials expire, by its password: what was really minted, whatever annotations say. */
const expiryOf = (auths: Auths, index: number): number | undefined => {
  const password = auths[hostOf(index)]?.password;
  return cluster.ecr.calls.find((call) => call.password === password && password !== undefined)?.expiresAt;
};
const failing = async (index: number) =>
  sample(await cluster.webhook.metrics(), 'ecr_anywhere_registry_failing', { registry: hostOf(index) });
const reasonsOf = ({ results }: ClusterReport) => results.map(({ reason }) => reason ?? '');

describe('a role is broken for twelve hours', () => {
  let brokenUntil = 0;
  let callsBefore = 0;

  test('all is well before', async () => {
    for (const secret of (await cluster.secrets()).values()) {
      const auths = authsOf(secret);
      for (const index of NUMBERS) expect(expiryOf(auths, index)).toBeGreaterThan(clock.now() + 11 * HOUR);
      brokenUntil = expiryOf(auths, BROKEN) ?? 0;
    }
    expect(await failing(BROKEN)).toBe(0);
    cluster.ecr.settings.roles[roleOf(BROKEN)] = { denied: true };
    callsBefore = cluster.ecr.calls.length;
  });

  test('hour by hour: the others never expire, and the broken one is named as soon as it is due', async () => {
    let toldAt: number | undefined;
    for (let hour = 1; hour <= 13; hour++) {
      clock.advance(HOUR);
      const report = await cluster.refresh();
      const now = clock.now();
      for (const secret of (await cluster.secrets()).values()) {
        const auths = authsOf(secret);
        expect(auths).toMatchObject(FOREIGN);
        // Half of a token's life, and the hour until the next run.
        for (const index of WELL) expect(expiryOf(auths, index)).toBeGreaterThan(now + 5 * HOUR);
        // Its old entry stays until it expires, and is gone then, once somebody looks.
        expect(expiryOf(auths, BROKEN)).toBe(now < brokenUntil ? brokenUntil : undefined);
      }
      if (report.results.length === 0) continue;
      toldAt ??= hour;
      expect(report).toMatchObject({ served: true, failed: true });
      expect(outcomesOf(report)).toEqual({ partial: SECRETS.length });
      for (const reason of reasonsOf(report)) {
        expect(reason).toMatch(new RegExp(`^${hostOf(BROKEN)}: .*${CAUSE}`));
        expect(reason).not.toContain(hostOf(BROKEN + 1));
      }
      expect(report.soonestExpiry).toBeLessThanOrEqual(brokenUntil);
      expect([await failing(BROKEN), await failing(BROKEN + 1)]).toEqual([1, 0]);
    }
    // Six hours before its pulls fail, less the cluster's jitter.
    expect(toldAt).toBeLessThanOrEqual(6);
  }, 120_000);

  test('nobody was asked more than it takes', async () => {
    const calls = cluster.ecr.calls.slice(callsBefore);
    const runs = 13 - 5;
    expect(calls.length).toBeLessThanOrEqual(runs * NUMBERS.length);
    // Six Secrets a run, a refusal for each five seconds.
    const refused = cluster.ecr.stsCalls.filter(({ role, ok }) => role === roleOf(BROKEN) && !ok);
    expect(refused.length).toBeGreaterThan(0);
    expect(refused.length).toBeLessThanOrEqual(runs * SECRETS.length);
    const metrics = await cluster.webhook.metrics();
    const counted = { role: roleOf(BROKEN), result: 'no-identity' };
    expect(sample(metrics, 'ecr_anywhere_ecr_calls_total', counted)).toBe(refused.length);
  });

  test("the log and a person's kubectl say it too, and a person's change goes through", async () => {
    expect(cluster.webhook.program.log()).toContain(`${hostOf(BROKEN)}: no valid credentials: ${CAUSE}`);
    const before = (await cluster.secrets()).get('team-a/one');
    const { stderr } = await cluster.controlPlane.kubectl([
      ...['annotate', 'secret', 'one', '--namespace', 'team-a', 'example.com/owner=alice'],
    ]);
    // kubectl breaks its lines.
    expect(stderr.replaceAll(/\s+/g, ' ')).toContain(
      `Warning: ${hostOf(BROKEN)}: no valid credentials: the role`,
    );
    expect((await cluster.secrets()).get('team-a/one')?.data).toEqual(before?.data);
  });

  test('mended, the next run brings it back', async () => {
    cluster.ecr.settings.roles[roleOf(BROKEN)] = { denied: false };
    clock.advance(HOUR);
    const report = await cluster.refresh();
    expect(report.failed, reasonsOf(report).join('\n')).toBe(false);
    expect(outcomesOf(report)).toEqual({ refreshed: SECRETS.length });
    for (const secret of (await cluster.secrets()).values()) {
      for (const index of NUMBERS)
        expect(expiryOf(authsOf(secret), index)).toBeGreaterThan(clock.now() + 11 * HOUR);
    }
    expect(await failing(BROKEN)).toBe(0);
  });
});

describe('an entitlement is taken away', () => {
  /** The chart's values changed, and the kubelet has brought it. */
  const use = async (document: object) => {
    const said = () => cluster.webhook.program.log().split('new policy in use').length;
    const before = said();
    await cluster.webhook.upgrade(document);
    await cluster.webhook.syncVolumes();
    await until(async () => said() > before);
  };

  test('it leaves at the next run, and nothing else does', async () => {
    await use(registriesFor((index) => (index === BROKEN ? ['team-b'] : ['*'])));
    clock.advance(7 * HOUR);
    const report = await cluster.refresh();
    expect(outcomesOf(report)).toEqual({ refreshed: SECRETS.length });
    for (const [path, secret] of await cluster.secrets()) {
      const hosts = (path.startsWith('team-b/') ? NUMBERS : WELL).map(hostOf);
      expect(Object.keys(authsOf(secret)).sort()).toEqual([...hosts, ...Object.keys(FOREIGN)].sort());
    }
    expect(cluster.webhook.program.log()).toContain(
      `${hostOf(BROKEN)}: removed: the namespace team-a is not entitled to it`,
    );
  });

  test('who loses everything is reported for as long as it is so', async () => {
    await use(registriesFor(() => ['team-b']));
    clock.advance(7 * HOUR);
    const first = await cluster.refresh();
    expect(outcomesOf(first)).toEqual({ refreshed: 3, partial: 3 });
    const partial = first.results.filter(({ outcome }) => outcome === 'partial');
    for (const { secret, reason } of partial) {
      expect(secret).toMatch(/^team-a\//);
      expect(reason).toContain('removed: the namespace team-a is not entitled to it');
    }
    const left = (await cluster.secrets()).get('team-a/one');
    expect(left && authsOf(left)).toEqual(FOREIGN);
    expect(left?.metadata.annotations).not.toHaveProperty([ANNOTATION.expiresAt]);

    const second = await cluster.refresh();
    expect(outcomesOf(second)).toEqual({ refused: 3 });
    for (const reason of reasonsOf(second)) {
      expect(reason).toContain('HTTP 403');
      expect(reason).toContain('The namespace team-a is entitled to no registry');
    }
    await expect(cluster.createSecrets([{ namespace: 'team-a', name: 'new' }])).rejects.toThrow(
      /403.*entitled to no registry: have it added to the policy/,
    );
  });
});
