// Stores the state of each cluster in a DynamoDB table, one item each. The most recent observation wins, so that
// overlapping runs cannot restore older values. A cluster that does not respond keeps the values observed before.
import {
  type AttributeValue,
  ConditionalCheckFailedException,
  type DynamoDBClient,
  paginateScan,
  UpdateItemCommand,
} from '@aws-sdk/client-dynamodb';
import { z } from 'zod';
import { CONDITIONS, type Condition } from '../../../contract/cluster-events.ts';
import { FAILURE_CODES, type FailureCode } from '../../../contract/refresher-api.ts';
import { STATE_ATTRIBUTE } from '../settings.ts';

/** The result of one cluster run. Times are milliseconds since the epoch. */
export interface Observation {
  readonly cluster: string;
  /** When the cluster run began. */
  readonly at: number;
  readonly served: boolean;
  readonly failed: boolean;
  readonly isPaused?: boolean;
  /** Why it failed. */
  readonly reason?: string | undefined;
  readonly codes?: readonly FailureCode[] | undefined;
  /** Managed Secrets, and those of them that were due. */
  readonly managed: number;
  readonly due: number;
  /** The soonest expiry of all its credentials; null if there are none; undefined if not all were observed. */
  readonly soonestExpiry: number | null | undefined;
  /** Of the registered token, if the token states it. */
  readonly tokenExpiresAt?: number | undefined;
}

/** The state that a run uses, after this observation or a more recent one. Times are milliseconds since the epoch. */
export interface ClusterState {
  readonly reachedAt?: number | undefined;
  readonly soonestExpiry?: number | undefined;
  readonly tokenExpiresAt?: number | undefined;
  /** Consecutive failures. */
  readonly failures: number;
  readonly failingSince?: number | undefined;
  /** Consecutive runs that did not fail. */
  readonly successes: number;
  readonly isPaused: boolean;
  readonly reason?: string | undefined;
  readonly codes: readonly FailureCode[];
  /** The conditions that were announced, and when something was last announced. */
  readonly announced: readonly Condition[];
  readonly announcedAt?: number | undefined;
  /** When its recovery was announced, or when it failed again within a day of that. */
  readonly recoveredAt?: number | undefined;
}

/** What a run announced of a cluster. */
export interface Announced {
  readonly announced: readonly Condition[];
  readonly startsQuietDay: boolean;
}

export interface AnnouncementStore {
  /**
   * Reserves the announcement for this run, so that runs that overlap do not both announce.
   *
   * @param announcedAt as the run knows it from the state
   * @returns whether no other run announces or has announced
   * @throws Error of DynamoDB
   */
  reserve(cluster: string, announcedAt: number | undefined, now: number): Promise<boolean>;
  /** Ends the reservation. @param announced absent if nothing could be announced: the next run tries again */
  settle(cluster: string, now: number, announced?: Announced): Promise<void>;
}

export interface ClusterStateWriter {
  /** Stores an observation, unless a more recent one is stored. @throws Error of DynamoDB */
  save(observation: Observation, signal: AbortSignal): Promise<ClusterState>;
}

/** The whole stored state of a cluster or of a discovery target. Times are RFC 3339. */
export interface StoredState {
  readonly cluster: string;
  readonly lookedAt?: string | undefined;
  readonly reachedAt?: string | undefined;
  readonly managed?: number | undefined;
  readonly due?: number | undefined;
  readonly soonestExpiry?: string | undefined;
  /** Consecutive failures. */
  readonly failures?: number | undefined;
  readonly failingSince?: string | undefined;
  readonly reason?: string | undefined;
  readonly codes?: readonly FailureCode[] | undefined;
  readonly pausedSince?: string | undefined;
  readonly tokenExpiresAt?: string | undefined;
}

export interface ClusterStateReader {
  /** All stored states, in no order. @throws Error of DynamoDB */
  load(signal: AbortSignal): Promise<StoredState[]>;
}

/** The time for saving one state, in milliseconds. */
export const SAVE_WITHIN_MS = 5_000;
/** After this many milliseconds, longer than any invocation of the function, a reservation is one of a run that was killed. */
const RESERVED_MS = 20 * 60_000;
/** Days after the last observation of a cluster when DynamoDB deletes its state. */
const EXPIRE_AFTER_DAYS = 30;
/** The most characters that are stored of a reason. */
const MAX_REASON_LENGTH = 1_000;

const Time = z.object({ S: z.iso.datetime() }).transform(({ S }) => Date.parse(S));
const Text = z
  .object({ S: z.string() })
  .transform(({ S }) => S)
  .optional();
const Figure = z
  .object({ N: z.coerce.number() })
  .transform(({ N }) => N)
  .optional();
/** A version of the refresher that is rolled back may find codes that it does not know. */
const Codes = z
  .object({ L: z.array(z.object({ S: z.enum(FAILURE_CODES).catch('unknown') })) })
  .transform(({ L }) => L.map(({ S }) => S))
  .optional();
const Count = z
  .object({ N: z.coerce.number() })
  .transform(({ N }) => N)
  .default(0);
/** Without those of a later version. */
const Conditions = z
  .object({ L: z.array(z.object({ S: z.string() })) })
  .transform(({ L }) => CONDITIONS.filter((condition) => L.some(({ S }) => S === condition)))
  .default([]);
const Item = z
  .object({
    [STATE_ATTRIBUTE.reachedAt]: Time.optional(),
    [STATE_ATTRIBUTE.soonestExpiry]: Time.optional(),
    [STATE_ATTRIBUTE.tokenExpiresAt]: Time.optional(),
    [STATE_ATTRIBUTE.failingSince]: Time.optional(),
    [STATE_ATTRIBUTE.failures]: Count,
    [STATE_ATTRIBUTE.successes]: Count,
    [STATE_ATTRIBUTE.pausedSince]: Time.optional(),
    [STATE_ATTRIBUTE.reason]: Text,
    [STATE_ATTRIBUTE.codes]: Codes.default([]),
    [STATE_ATTRIBUTE.announced]: Conditions,
    [STATE_ATTRIBUTE.announcedAt]: Time.optional(),
    [STATE_ATTRIBUTE.recoveredAt]: Time.optional(),
  })
  .transform(
    ({ pausedSince, ...state }): ClusterState => ({ ...state, isPaused: pausedSince !== undefined }),
  );
const WholeItem = z
  .object({
    [STATE_ATTRIBUTE.cluster]: z.object({ S: z.string() }).transform(({ S }) => S),
    [STATE_ATTRIBUTE.lookedAt]: Text,
    [STATE_ATTRIBUTE.reachedAt]: Text,
    [STATE_ATTRIBUTE.managed]: Figure,
    [STATE_ATTRIBUTE.due]: Figure,
    [STATE_ATTRIBUTE.soonestExpiry]: Text,
    [STATE_ATTRIBUTE.failures]: Figure,
    [STATE_ATTRIBUTE.failingSince]: Text,
    [STATE_ATTRIBUTE.reason]: Text,
    [STATE_ATTRIBUTE.codes]: Codes,
    [STATE_ATTRIBUTE.pausedSince]: Text,
    [STATE_ATTRIBUTE.tokenExpiresAt]: Text,
  })
  .readonly();

/** The states in a DynamoDB table. */
export function clusterStates(
  client: DynamoDBClient,
  table: string,
): ClusterStateWriter & ClusterStateReader & AnnouncementStore {
  return {
    async reserve(cluster, announcedAt, now) {
      const { announcing, announcedAt: at } = STATE_ATTRIBUTE;
      const command = new UpdateItemCommand({
        TableName: table,
        Key: { [STATE_ATTRIBUTE.cluster]: { S: cluster } },
        UpdateExpression: `SET ${announcing} = :now`,
        // The reservation of this run counts as its own, because the SDK may send the update twice.
        ConditionExpression:
          `(attribute_not_exists(${announcing}) OR ${announcing} < :overdue OR ${announcing} = :now) AND ` +
          (announcedAt === undefined ? `attribute_not_exists(${at})` : `${at} = :at`),
        ExpressionAttributeValues: {
          ':now': { S: timeText(now) },
          ':overdue': { S: timeText(now - RESERVED_MS) },
          ...(announcedAt !== undefined && { ':at': { S: timeText(announcedAt) } }),
        },
      });
      try {
        await client.send(command, { abortSignal: AbortSignal.timeout(SAVE_WITHIN_MS) });
        return true;
      } catch (error) {
        if (error instanceof ConditionalCheckFailedException) return false;
        throw error;
      }
    },

    async settle(cluster, now, result) {
      const { announcing, announced, announcedAt, recoveredAt } = STATE_ATTRIBUTE;
      const command = new UpdateItemCommand({
        TableName: table,
        Key: { [STATE_ATTRIBUTE.cluster]: { S: cluster } },
        UpdateExpression: result
          ? `SET ${announced} = :announced, ${announcedAt} = :now${result.startsQuietDay ? `, ${recoveredAt} = :now` : ''} REMOVE ${announcing}`
          : `REMOVE ${announcing}`,
        ConditionExpression: `${announcing} = :now`,
        ExpressionAttributeValues: {
          ':now': { S: timeText(now) },
          ...(result && { ':announced': { L: result.announced.map((condition) => ({ S: condition })) } }),
        },
      });
      try {
        await client.send(command, { abortSignal: AbortSignal.timeout(SAVE_WITHIN_MS) });
      } catch (error) {
        // The update was sent twice, or the reservation was overdue and another run has it.
        if (!(error instanceof ConditionalCheckFailedException)) throw error;
      }
    },

    async load(signal) {
      const states: StoredState[] = [];
      // Consistent: operators ask for the status right after a run.
      const input = { TableName: table, ConsistentRead: true };
      for await (const { Items } of paginateScan({ client }, input, { abortSignal: signal }))
        for (const item of Items ?? []) states.push(WholeItem.parse(item));
      return states;
    },

    async save(observation, signal) {
      const command = new UpdateItemCommand({
        TableName: table,
        Key: { [STATE_ATTRIBUTE.cluster]: { S: observation.cluster } },
        ...updateFor(observation),
        ReturnValues: 'ALL_NEW',
        ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
      });
      try {
        const { Attributes } = await client.send(command, { abortSignal: signal });
        return stateOf(Attributes);
      } catch (error) {
        if (error instanceof ConditionalCheckFailedException) return stateOf(error.Item);
        throw error;
      }
    },
  };
}

function stateOf(item: Record<string, AttributeValue> | undefined): ClusterState {
  return Item.parse(item ?? {});
}

/** RFC 3339 in UTC with milliseconds, which sorts as text and which operators can read in the table. */
function timeText(ms: number): string {
  return new Date(ms).toISOString();
}

/** The update for an observation. */
function updateFor(observation: Observation) {
  const { at, served, failed, isPaused = false, reason, codes = [], managed, due } = observation;
  const { soonestExpiry, tokenExpiresAt } = observation;
  const set: string[] = [];
  const remove: string[] = [];
  const values: Record<string, AttributeValue> = {};
  const setValue = (name: string, value: AttributeValue) => {
    set.push(`#${name} = :${name}`);
    values[`:${name}`] = value;
  };
  const setText = (name: string, value: string) => setValue(name, { S: value });
  const setNumber = (name: string, value: number) => setValue(name, { N: String(value) });
  const setIfAbsent = (name: string, value: string) => {
    set.push(`#${name} = if_not_exists(#${name}, :${name})`);
    values[`:${name}`] = { S: value };
  };
  const time = timeText(at);
  setText(STATE_ATTRIBUTE.lookedAt, time);
  setNumber(STATE_ATTRIBUTE.forgetAt, Math.round(at / 1000) + EXPIRE_AFTER_DAYS * 86_400);

  if (isPaused) setIfAbsent(STATE_ATTRIBUTE.pausedSince, time);
  else remove.push(STATE_ATTRIBUTE.pausedSince);
  if (served) {
    setText(STATE_ATTRIBUTE.reachedAt, time);
    setNumber(STATE_ATTRIBUTE.managed, managed);
    setNumber(STATE_ATTRIBUTE.due, due);
  }
  if (soonestExpiry === null) remove.push(STATE_ATTRIBUTE.soonestExpiry);
  else if (soonestExpiry !== undefined) setText(STATE_ATTRIBUTE.soonestExpiry, timeText(soonestExpiry));
  if (tokenExpiresAt === undefined) remove.push(STATE_ATTRIBUTE.tokenExpiresAt);
  else setText(STATE_ATTRIBUTE.tokenExpiresAt, timeText(tokenExpiresAt));
  const count = (up: string, reset: string) => {
    set.push(`#${up} = if_not_exists(#${up}, :zero) + :one`, `#${reset} = :zero`);
    values[':zero'] = { N: '0' };
    values[':one'] = { N: '1' };
  };
  if (failed) {
    count(STATE_ATTRIBUTE.failures, STATE_ATTRIBUTE.successes);
    setIfAbsent(STATE_ATTRIBUTE.failingSince, time);
    setText(STATE_ATTRIBUTE.reason, (reason ?? '').slice(0, MAX_REASON_LENGTH));
    setValue(STATE_ATTRIBUTE.codes, { L: codes.map((code) => ({ S: code })) });
  } else {
    count(STATE_ATTRIBUTE.successes, STATE_ATTRIBUTE.failures);
    remove.push(STATE_ATTRIBUTE.failingSince, STATE_ATTRIBUTE.reason, STATE_ATTRIBUTE.codes);
  }

  const UpdateExpression = [
    `SET ${set.join(', ')}`,
    ...(remove.length > 0 ? [`REMOVE ${remove.map((name) => `#${name}`).join(', ')}`] : []),
  ].join(' ');
  const names = new Set(UpdateExpression.matchAll(/#(\w+)/g).map(([, name = '']) => name));
  const { lookedAt } = STATE_ATTRIBUTE;
  return {
    UpdateExpression,
    // The SDK may send the update twice, if it retries; the second one must not count another failure.
    ConditionExpression: `attribute_not_exists(#${lookedAt}) OR #${lookedAt} < :${lookedAt}`,
    ExpressionAttributeNames: Object.fromEntries([...names].map((name) => [`#${name}`, name])),
    ExpressionAttributeValues: values,
  };
}
