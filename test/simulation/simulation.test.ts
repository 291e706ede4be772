// Simulates fleets on a virtual clock: what is announced of 1,000 clusters when nine have been dead for weeks, how outages of
// ECR and of the refresher's Region end, and what a quota of ECR does.
import { beforeAll, describe, expect, test } from 'vitest';
import { DEFAULTS } from './defaults.ts';
import { type FleetSettings, fleetOf, isDuring } from './fleet.ts';
import { QUOTAS } from './quotas.ts';
import { type Announcement, type SimulationResult, type SimulationSettings, simulate } from './simulation.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const { startsAt } = DEFAULTS;

describe('1,000 clusters: 9 have been dead for weeks, 30 flap, 20 are paused, 40 are cut off at the worst moment', () => {
  const registeredAt = startsAt + 18 * DAY;
  const endsAt = startsAt + 21 * DAY;
  const fleet = fleetOf({
    seed: 7,
    startsAt,
    registeredAt,
    endsAt,
    installedWithinMs: 6 * HOUR,
    healthy: 901,
    dead: 9,
    flapping: 30,
    paused: 20,
    cutOffAfter: Array.from({ length: 40 }, (_, index) => registeredAt + DAY + index * 0.6 * HOUR),
  });
  let result: SimulationResult;
  beforeAll(async () => {
    result = await simulate(fleet, { ...DEFAULTS, endsAt, secrets: 2 });
  });

  const names = (kind: string) => fleet.map(({ name }) => name).filter((name) => name.startsWith(`${kind}-`));
  const announced = (cluster: string) =>
    result.announcements.filter((announcement) => announcement.cluster === cluster);
  const transitions = (cluster: string) => announced(cluster).map(({ transition }) => transition);

  test('a cluster that is cut off is announced within two intervals, while its Secrets are valid for three more hours', () => {
    const longest = 2 * (DEFAULTS.intervalMs + DEFAULTS.flexibleWindowMs);
    for (const name of names('cut-off')) {
      const [first] = announced(name);
      expect(first).toMatchObject({ cluster: name, transition: 'failing' });
      const { at = Number.NaN, left } = first ?? {};
      expect(at - (result.firstFailures.get(name) ?? Number.NaN)).toBeLessThan(longest);
      expect(left).toBeGreaterThanOrEqual(3 * HOUR);
    }
  });

  test('a cluster that is cut off for half a day is announced once for each condition, and once when it recovers', () => {
    for (const name of names('cut-off'))
      expect(transitions(name).filter((transition) => transition !== 'reminder')).toEqual([
        'failing',
        'expiring',
        'expired',
        'recovered',
      ]);
  });

  test('clusters that work or are paused are not announced', () => {
    expect(result.announcements.filter(({ cluster }) => /^(healthy|paused)-/.test(cluster))).toEqual([]);
  });

  test('a dead cluster is announced once for each condition, and then once a day', () => {
    for (const name of names('dead')) {
      const [failing, expiring, expired, ...reminders] = transitions(name);
      expect([failing, expiring, expired]).toEqual(['failing', 'expiring', 'expired']);
      expect(reminders).toEqual(Array.from({ length: 20 }, () => 'reminder'));
    }
  });

  test('at most five messages a day are about other things, once the clusters that flap are known', () => {
    const isNews = ({ cluster, transition }: Announcement) =>
      cluster.startsWith('cut-off-') || (cluster.startsWith('dead-') && transition !== 'reminder');
    const news = new Set(result.announcements.filter(isNews).map(({ at }) => at));
    const others = result.messages.filter(({ at }) => !news.has(at));
    const dayOf = (at: number) => Math.floor((at - startsAt) / DAY);
    const days = Map.groupBy(others, ({ at }) => dayOf(at));
    for (let day = 0; day < dayOf(endsAt); day++)
      if (day !== dayOf(registeredAt)) expect(days.get(day)?.length ?? 0).toBeLessThanOrEqual(5);
  });

  test('a Secret of a cluster that works is always valid for at least four more hours', () => {
    for (const name of names('healthy')) expect(result.leastLeft.get(name)).toBeGreaterThan(4 * HOUR);
  });
});

describe('a fleet of 50 clusters', () => {
  const endsAt = startsAt + DAY;
  const outage = { from: startsAt + 8 * HOUR, to: startsAt + 11 * HOUR };
  const small = (settings: Partial<SimulationSettings> = {}, fleet: Partial<FleetSettings> = {}) =>
    simulate(
      fleetOf({
        seed: 7,
        startsAt,
        registeredAt: startsAt,
        endsAt,
        installedWithinMs: 6 * HOUR,
        healthy: 50,
        dead: 0,
        flapping: 0,
        paused: 0,
        cutOffAfter: [],
        ...fleet,
      }),
      { ...DEFAULTS, endsAt, secrets: 20, ...settings },
    );
  const least = ({ leastLeft }: SimulationResult) => Math.min(...leastLeft.values());
  const calls = ({ ecrCalls }: SimulationResult) =>
    [...ecrCalls.values()].reduce((sum, count) => sum + count, 0);

  test('has the same result for the same seed, and another for another', async () => {
    const [first, second, other] = [await small(), await small(), await small({ seed: 8 })];
    expect(second).toEqual(first);
    expect(other.runs).not.toEqual(first.runs);
  });

  test('calls ECR once for each replica and time that the Secrets of a cluster are due', async () => {
    const result = await small({ secrets: 100 }, { installedWithinMs: 1 });
    const refreshes = result.runs.reduce((sum, { refreshed }) => sum + refreshed, 0);
    expect(calls(result)).toBe((refreshes / 100) * DEFAULTS.replicas);
  });

  test('keeps all credentials valid through an outage of ECR of three hours, and announces the clusters', async () => {
    const result = await small({ ecr: { isDown: (at) => isDuring(outage, at) } });
    expect(least(result)).toBeGreaterThan(HOUR);
    expect(result.announcements.map(({ transition }) => transition)).toContain('failing');
    expect(result.runs.at(-1)).toMatchObject({ failed: 0 });
  });

  test('keeps all credentials valid while the Region of the refresher and of ECR is down for three hours', async () => {
    const result = await small({
      ecr: { isDown: (at) => isDuring(outage, at) },
      isRefresherDown: (at) => isDuring(outage, at),
    });
    expect(result.runs).toHaveLength(21);
    expect(least(result)).toBeGreaterThan(HOUR);
    expect(result.runs.at(-1)).toMatchObject({ failed: 0 });
  });

  test('is refreshed although ECR throttles its calls', async () => {
    const quota = QUOTAS.ecrThrottlePerSecond;
    const result = await small({ ecr: { quota, isDown: () => false } }, { installedWithinMs: 1 });
    expect(result.ecrThrottled).toBeGreaterThan(0);
    expect(least(result)).toBeGreaterThan(3 * HOUR);
  });

  test('leaves out the clusters for which a run has no time, and serves them in the next runs', async () => {
    const result = await small({ timeoutMs: 40_000, concurrency: 2 }, { healthy: 60, dead: 4 });
    expect(result.runs.some(({ notStarted }) => notStarted > 0)).toBe(true);
    const healthy = [...result.leastLeft].filter(([name]) => name.startsWith('healthy-'));
    expect(Math.min(...healthy.map(([, left]) => left))).toBeGreaterThan(0);
  });
});
