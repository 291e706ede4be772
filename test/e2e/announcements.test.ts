// What people learn of a cluster that loses its pulls, on the deployed stack: each alarm and each transition by its real
// cause, and the messages at subscribers of the topic and of the event bus.
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { AlarmState } from '../bed/cloudwatch-alarms.ts';
import { type MetricRelay, relayMetrics } from '../bed/metrics.ts';
import { type Subscribers, subscribe, type TopicMessage } from '../bed/subscribers.ts';
import { Bed, pullSecretManifest } from '../bed/up.ts';

/** An alarm forgets a run a minute later: with one run a minute, that is its period. */
const SOON = { timeout: 150_000, interval: 1_000 };

let bed: Bed;
let subscribers: Subscribers;
let relay: MetricRelay;

beforeAll(async () => {
  bed = await Bed.create({
    clusters: ['edge'],
    context: { rateMinutes: 1, scheduleEnabled: false, clusterDeadlineSeconds: 10 },
  });
  await bed.start();
  subscribers = await subscribe(bed.deployment.emulator, bed.deployment.outputs.AlarmTopicArn ?? '');
  relay = relayMetrics(bed.deployment);
});
afterAll(async () => {
  await relay?.[Symbol.asyncDispose]();
  subscribers?.[Symbol.dispose]();
  await bed?.[Symbol.asyncDispose]();
});

/** Creates a namespace with a Secret whose credentials are valid for so long. */
async function applySecret(namespace: string, lifetimeSeconds: number): Promise<void> {
  const { controlPlane, webhook } = bed.cluster('edge');
  // A restarted webhook has no cached token.
  await webhook.program.stop();
  await webhook.start();
  bed.ecr.settings.nextLifetimesSeconds = [lifetimeSeconds];
  await controlPlane.kubectl(['apply', '-f', '-'], { input: pullSecretManifest(namespace) });
}

const run = () => bed.deployment.invoke();

/** Runs until the alarms are in these states. */
async function runUntilAlarms(states: Readonly<Record<string, AlarmState>>): Promise<void> {
  await expect
    .poll(async () => {
      await run();
      return bed.deployment.alarms();
    }, SOON)
    .toMatchObject(states);
}

const inbox: TopicMessage[] = [];
/** All messages of the topic so far, the alarms' too. @returns their subjects */
async function subjects(): Promise<string[]> {
  inbox.push(...(await subscribers.messages()));
  return inbox.map(({ Subject }) => Subject);
}
const ALL_OK = { ClustersFailed: 'OK', SoonestExpiry: 'OK', AnnouncementsFailed: 'OK' } as const;

/** Runs until the transition is announced. @returns the transitions on the way, in order */
async function runUntil(transition: string): Promise<string[]> {
  const seen: string[] = [];
  await expect
    .poll(async () => {
      await run();
      seen.push(...(await subscribers.events()).map((event) => event.transition));
      return seen;
    }, SOON)
    .toContain(transition);
  return seen;
}

test('a healthy cluster sets off no alarm and no message', async () => {
  await applySecret('team-a', 12 * 3600);
  await runUntilAlarms(ALL_OK);
  expect((await subjects()).filter((subject) => /^(ECR Anywhere|ALARM)/.test(subject))).toEqual([]);
});

test('a cluster whose webhook is gone is announced before and after its credentials expire', async () => {
  const { webhook } = bed.cluster('edge');
  await applySecret('team-b', 2 * 3600);
  await webhook.program.stop();
  const seen = await runUntil('expiring');
  await applySecret('team-c', 20);
  await webhook.program.stop();
  seen.push(...(await runUntil('expired')));

  // Each once.
  expect(seen).toHaveLength(new Set(seen).size);
  expect(await subjects()).toContain('ECR Anywhere: edge is without valid credentials');
  for (const { Subject, Message } of inbox.filter(({ Subject }) => Subject.startsWith('ECR Anywhere'))) {
    expect(Subject).toContain('edge');
    expect(Message).toContain(`run: ecr-anywhere doctor edge --region ${bed.deployment.emulator.region}`);
    expect(Message).toMatch(/reason: .*webhook/);
  }
  await runUntilAlarms({ ClustersFailed: 'ALARM', SoonestExpiry: 'ALARM' });
  for (const name of ['ClustersFailed', 'SoonestExpiry'])
    await expect.poll(subjects, SOON).toContainEqual(expect.stringMatching(`^ALARM: .*${name}`));
});

test('a recovery that SNS may not announce sets off AnnouncementsFailed, and is announced when it may', async () => {
  await bed.cluster('edge').webhook.start();
  const restore = await bed.deployment.forbid('sns:Publish');
  await runUntilAlarms({ AnnouncementsFailed: 'ALARM' });
  const recovered = 'ECR Anywhere: edge has recovered';
  expect(await subjects()).not.toContain(recovered);
  await restore();

  await run();

  await expect.poll(subjects, SOON).toContain(recovered);
  await runUntilAlarms(ALL_OK);
  expect((await subjects()).filter((subject) => subject === recovered)).toHaveLength(1);
});
