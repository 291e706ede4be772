// Tests announcements on a local AWS: what subscribers of the topic and of the event bus receive over days of runs, from
// runs that overlap, and when SNS or EventBridge refuse.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EventBridgeClient } from '@aws-sdk/client-eventbridge';
import { CreateTopicCommand, SNSClient } from '@aws-sdk/client-sns';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import {
  type AnnouncementStore,
  type ClusterStateWriter,
  clusterStates,
  type Observation,
} from '../../../../functions/refresher/clusters/cluster-state.ts';
import { announce } from '../../../../functions/refresher/run/announcements.ts';
import { publisher } from '../../../../functions/refresher/run/publisher.ts';
import { type Subscribers, subscribe } from '../../../bed/subscribers.ts';
import { type ClusterStateTable, startClusterStateTable } from '../../cluster-state-table.ts';
import { HOUR } from '../../real-cluster.ts';

const START = Date.parse('2026-11-24T00:00:00Z');
const SETTINGS = { region: 'eu-central-1', stackName: 'EcrAnywhere' };

let dir: string;
let table: ClusterStateTable;
let states: ClusterStateWriter & AnnouncementStore;
let events: EventBridgeClient;
let sns: SNSClient;
let topicArn: string;
let subscribers: Subscribers;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  table = await startClusterStateTable(dir);
  states = clusterStates(table.client, table.name);
  events = new EventBridgeClient(table.emulator.clientConfig);
  sns = new SNSClient(table.emulator.clientConfig);
  topicArn = (await sns.send(new CreateTopicCommand({ Name: 'alarms' }))).TopicArn ?? '';
  subscribers = await subscribe(table.emulator, topicArn);
});
afterAll(async () => {
  for (const client of [events, sns]) client?.destroy();
  subscribers?.[Symbol.dispose]();
  await table?.[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});
beforeEach(async () => {
  await subscribers.messages();
  await subscribers.events();
});

const told = async () =>
  (await subscribers.events()).map(({ cluster, transition }) => `${cluster}: ${transition}`).sort();

const target = () => publisher({ events, sns }, topicArn);
const signal = () => AbortSignal.timeout(30_000);

/** Saves the observations of one run and announces. */
async function run(observations: readonly Observation[], at: number, to = target()) {
  const reports = [];
  for (const observation of observations)
    reports.push({ cluster: observation.cluster, state: await states.save(observation, signal()) });
  return announce(reports, states, to, SETTINGS, at);
}

const served = (cluster: string, at: number): Observation => ({
  cluster,
  at,
  served: true,
  failed: false,
  managed: 5,
  due: 2,
  soonestExpiry: at + 11 * HOUR,
});
const failed = (cluster: string, at: number): Observation => ({
  cluster,
  at,
  served: false,
  failed: true,
  reason: `${cluster} does not answer`,
  codes: ['unreachable'],
  managed: 0,
  due: 0,
  soonestExpiry: undefined,
});

test('a message and an event have the name, the reason and the first command', async () => {
  for (const hour of [0, 1]) await run([failed('edge-7', START + hour * HOUR)], START + hour * HOUR);
  expect(await subscribers.events()).toEqual([
    {
      id: 'edge-7/failing/first',
      cluster: 'edge-7',
      transition: 'failing',
      conditions: ['failing'],
      reason: 'edge-7 does not answer',
      codes: ['unreachable'],
      failures: 2,
      failingSince: '2026-11-24T00:00:00.000Z',
      command: 'ecr-anywhere doctor edge-7 --region eu-central-1',
    },
  ]);
  const [message, ...others] = await subscribers.messages();
  expect(others).toEqual([]);
  expect(message).toMatchObject({ Subject: 'ECR Anywhere: edge-7 is failing' });
  expect(message?.Message.split('\n')).toEqual([
    expect.stringMatching(/^Failed at least twice in a row\./),
    '',
    'edge-7',
    '  failing since: 2026-11-24T00:00:00.000Z',
    '  reason: edge-7 does not answer',
    '  run: ecr-anywhere doctor edge-7 --region eu-central-1',
    '',
  ]);
});

test('three days of a fleet: each cluster in danger is announced once, whatever else is down', async () => {
  const HOURS = 72;
  const names = (kind: string, count: number) => Array.from({ length: count }, (_, i) => `${kind}-${i}`);
  const good = names('good', 20);
  const dead = names('dead', 9);
  const flapping = names('flapping', 3);
  const paused = names('paused', 2);
  const cut = 'cut-off';
  const CUT_AT = 30;
  const REPAIRED_AT = 60;
  // Before the first hour, the dead clusters were served once.
  await run(
    dead.map((cluster) => served(cluster, START - HOUR)),
    START - HOUR,
  );
  const messagesOf: string[][] = [];
  const seen: { hour: number; told: string[] }[] = [];
  let expiry = START;
  for (let hour = 0; hour < HOURS; hour++) {
    const at = START + hour * HOUR;
    const isCut = hour >= CUT_AT && hour < REPAIRED_AT;
    if (!isCut) expiry = at + 6 * HOUR;
    await run(
      [
        ...good.map((cluster) => served(cluster, at)),
        ...dead.map((cluster) => failed(cluster, at)),
        // Down for two hours, up for three.
        ...flapping.map((cluster) => (hour % 5 < 2 ? failed(cluster, at) : served(cluster, at))),
        ...paused.map((cluster) => ({ ...failed(cluster, at), failed: false, isPaused: true })),
        // At the worst moment: its credentials were about to be refreshed.
        isCut ? failed(cut, at) : { ...served(cut, at), soonestExpiry: expiry },
      ],
      at,
    );
    const now = await told();
    if (now.length > 0) seen.push({ hour, told: now });
    messagesOf.push((await subscribers.messages()).map(({ Subject }) => Subject));
  }
  const hoursOf = (text: string) => seen.filter((one) => one.told.includes(text)).map(({ hour }) => hour);

  // Its second failed run: all its credentials are valid for more than three hours.
  expect(hoursOf(`${cut}: failing`)).toEqual([CUT_AT + 1]);
  expect(expiryAtCut(CUT_AT + 1)).toBeGreaterThan(3);
  expect(hoursOf(`${cut}: expiring`)).toEqual([CUT_AT + 3]);
  expect(hoursOf(`${cut}: expired`)).toEqual([CUT_AT + 5]);
  expect(hoursOf(`${cut}: recovered`)).toEqual([REPAIRED_AT + 1]);
  for (const cluster of dead) {
    expect(hoursOf(`${cluster}: failing`)).toEqual([1]);
    expect(hoursOf(`${cluster}: expiring`)).toEqual([8]);
    expect(hoursOf(`${cluster}: expired`)).toEqual([10]);
    expect(hoursOf(`${cluster}: recovered`)).toEqual([]);
  }
  for (const cluster of flapping) {
    expect(hoursOf(`${cluster}: failing`).length).toBeLessThanOrEqual(3);
    expect(hoursOf(`${cluster}: expiring`)).toEqual([]);
  }
  expect(seen.flatMap((one) => one.told).filter((text) => /^(good|paused)/.test(text))).toEqual([]);
  // One message for all that changed in a run, and at most a handful a day.
  expect(messagesOf.every((subjects) => subjects.length <= 1)).toBe(true);
  for (const day of [0, 1, 2])
    expect(messagesOf.slice(day * 24, day * 24 + 24).flat().length).toBeLessThanOrEqual(8);
  const reminders = messagesOf.flatMap((subjects, hour) =>
    subjects.some((subject) => subject.includes('still failing')) ? [hour] : [],
  );
  expect(reminders).toEqual([32, 56]);

  function expiryAtCut(hour: number): number {
    return 6 - (hour - (CUT_AT - 1));
  }
});

test('runs that overlap announce once', async () => {
  await run([failed('twice', START)], START);
  const state = await states.save(failed('twice', START + HOUR), signal());
  const reports = [{ cluster: 'twice', state }];
  const runs = [0, 1, 2].map((ms) => announce(reports, states, target(), SETTINGS, START + HOUR + ms));
  await Promise.all(runs);
  expect(await told()).toEqual(['twice: failing']);
});

test('what SNS or EventBridge refuse is announced by the next run', async () => {
  const noTopic = publisher({ events, sns }, `${topicArn}-deleted`);
  await run([failed('later', START)], START);
  const first = await run([failed('later', START + HOUR)], START + HOUR, noTopic);
  expect(first).toMatchObject({ announced: [], failures: [{ cluster: 'later' }] });
  expect(await subscribers.messages()).toEqual([]);
  const second = await run([failed('later', START + 2 * HOUR)], START + 2 * HOUR);
  expect(second).toEqual({ announced: [{ cluster: 'later', transition: 'failing' }], failures: [] });
  expect(await subscribers.messages()).toHaveLength(1);
});

test('SNS gets one message although EventBridge refuses the event', async () => {
  const noEvents = {
    ...target(),
    events: async (entries: readonly unknown[]) => entries.map(() => 'EventBridge: AccessDenied'),
  };
  await run([failed('told', START)], START, noEvents);
  const first = await run([failed('told', START + HOUR)], START + HOUR, noEvents);
  expect(first.failures).toEqual([{ cluster: 'told', reason: 'EventBridge: AccessDenied' }]);
  await run([failed('told', START + 2 * HOUR)], START + 2 * HOUR, noEvents);
  expect((await subscribers.messages()).map(({ Subject }) => Subject)).toEqual([
    'ECR Anywhere: told is failing',
  ]);
});

test('an event that is repeated because SNS refused the message has the same id', async () => {
  const noTopic = publisher({ events, sns }, `${topicArn}-deleted`);
  await run([failed('again', START)], START);
  await run([failed('again', START + HOUR)], START + HOUR, noTopic);
  await run([failed('again', START + 2 * HOUR)], START + 2 * HOUR);
  const ids = (await subscribers.events()).map(({ id }) => id);
  expect(ids).toEqual(['again/failing/first', 'again/failing/first']);
});

test('credentials of a cluster that is never listed completely are announced when they expire', async () => {
  const at = START + 10 * 24 * HOUR;
  const partial = { ...failed('partial', at), served: true, soonestExpiry: undefined };
  const state = await states.save(partial, signal());
  const report = { cluster: 'partial', served: true, isPartial: true, soonestExpiry: at + 2 * HOUR };
  await announce([{ ...report, ...(state && { state }) }], states, target(), SETTINGS, at);
  expect(await told()).toEqual(['partial: expiring']);
});

test('a run that ends while it announces leaves it to the next', async () => {
  await run([failed('killed', START)], START);
  await states.save(failed('killed', START + HOUR), signal());
  expect(await states.reserve('killed', undefined, START + HOUR)).toBe(true);
  await run([failed('killed', START + HOUR + 60_000)], START + HOUR + 60_000);
  expect(await told()).toEqual([]);
  await run([failed('killed', START + 2 * HOUR)], START + 2 * HOUR);
  expect(await told()).toEqual(['killed: failing']);
});

test('a thousand clusters that fail at once are a few messages, and an event each', async () => {
  const all = Array.from({ length: 1_000 }, (_, index) => `region-${String(index).padStart(4, '0')}`);
  for (const hour of [0, 1])
    await run(
      all.map((cluster) => failed(cluster, START + hour * HOUR)),
      START + hour * HOUR,
    );
  const names = (await subscribers.events()).map(({ cluster }) => cluster);
  expect(names.sort()).toEqual(all);
  const messages = await subscribers.messages();
  expect(messages).toHaveLength(10);
  for (const { Subject, Message } of messages) {
    expect(Subject).toMatch(/^ECR Anywhere: region-\d+ is failing \(and 99 more\)$/);
    expect(Subject.length).toBeLessThan(100);
    expect(Buffer.byteLength(Message)).toBeLessThan(256 * 1024);
  }
});
