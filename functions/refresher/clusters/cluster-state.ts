// What the refresher last knew of each cluster, in one DynamoDB table: an item each, replaced only by a newer look at
// the cluster, so that overlapping runs cannot mislead. A cluster that is silent keeps what was known of it.
import {
  type AttributeValue,
  ConditionalCheckFailedException,
  type DynamoDBClient,
  paginateScan,
  UpdateItemCommand,
} from '@aws-sdk/client-dynamodb';
import { z } from 'zod';
import { MEMORY } from '../settings.ts';

/** One look at a cluster. Times are milliseconds since the epoch. */
export interface Look {
  readonly cluster: string;
  /** When its turn began. */
  readonly at: number;
  readonly served: boolean;
  readonly failed: boolean;
  readonly isPaused?: boolean;
  readonly reason?: string | undefined;
  /** Secrets, and those of them that were due. */
  readonly managed: number;
  readonly due: number;
  /** The soonest expiry of all its credentials; null where there are none; undefined where not all could be seen. */
  readonly soonestExpiry: number | null | undefined;
  /** Of the registered token, where that is known. */
  readonly tokenExpiresAt?: number | undefined;
}

/** What is known of a cluster after a look, be it this one or a newer one. Times are milliseconds since the epoch. */
export interface Known {
  readonly reachedAt?: number;
  readonly soonestExpiry?: number;
  /** Failures in a row. */
  readonly failures: number;
  readonly failingSince?: number;
}

export interface Memory {
  /** Remembers a look, unless a newer one is known. @throws Error of DynamoDB */
  remember(look: Look, signal: AbortSignal): Promise<Known>;
}

/** All that is remembered of a cluster, or of a place where clusters are looked for. Times are RFC 3339. */
export interface Remembered {
  readonly cluster: string;
  readonly lookedAt?: string | undefined;
  readonly reachedAt?: string | undefined;
  readonly managed?: number | undefined;
  readonly due?: number | undefined;
  readonly soonestExpiry?: string | undefined;
  /** In a row. */
  readonly failures?: number | undefined;
  readonly failingSince?: string | undefined;
  readonly reason?: string | undefined;
  readonly pausedSince?: string | undefined;
  readonly tokenExpiresAt?: string | undefined;
}

export interface Recollection {
  /** All that is remembered, in no order. @throws Error of DynamoDB */
  recall(signal: AbortSignal): Promise<Remembered[]>;
}

/** Days until a cluster is forgotten at which nobody looks any more. */
const FORGET_AFTER_DAYS = 30;
/** Characters of a reason, at most. */
const REASON_LENGTH = 1_000;

const Time = z.object({ S: z.iso.datetime() }).transform(({ S }) => Date.parse(S));
const Item = z.object({
  [MEMORY.reachedAt]: Time.optional(),
  [MEMORY.soonestExpiry]: Time.optional(),
  [MEMORY.failingSince]: Time.optional(),
  [MEMORY.failures]: z
    .object({ N: z.coerce.number() })
    .transform(({ N }) => N)
    .default(0),
});

const Text = z
  .object({ S: z.string() })
  .transform(({ S }) => S)
  .optional();
const Figure = z
  .object({ N: z.coerce.number() })
  .transform(({ N }) => N)
  .optional();
const Whole = z
  .object({
    [MEMORY.cluster]: z.object({ S: z.string() }).transform(({ S }) => S),
    [MEMORY.lookedAt]: Text,
    [MEMORY.reachedAt]: Text,
    [MEMORY.managed]: Figure,
    [MEMORY.due]: Figure,
    [MEMORY.soonestExpiry]: Text,
    [MEMORY.failures]: Figure,
    [MEMORY.failingSince]: Text,
    [MEMORY.reason]: Text,
    [MEMORY.pausedSince]: Text,
    [MEMORY.tokenExpiresAt]: Text,
  })
  .readonly();

/** The memory in a table. */
export function memoryIn(client: DynamoDBClient, table: string): Memory & Recollection {
  return {
    async recall(signal) {
      const all: Remembered[] = [];
      // Consistent: people look right after a run.
      const input = { TableName: table, ConsistentRead: true };
      for await (const { Items } of paginateScan({ client }, input, { abortSignal: signal }))
        for (const item of Items ?? []) all.push(Whole.parse(item));
      return all;
    },

    async remember(look, signal) {
      const command = new UpdateItemCommand({
        TableName: table,
        Key: { [MEMORY.cluster]: { S: look.cluster } },
        ...updateFor(look),
        ReturnValues: 'ALL_NEW',
        ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
      });
      try {
        const { Attributes } = await client.send(command, { abortSignal: signal });
        return known(Attributes);
      } catch (error) {
        if (error instanceof ConditionalCheckFailedException) return known(error.Item);
        throw error;
      }
    },
  };
}

function known(item: Record<string, AttributeValue> | undefined): Known {
  const { reachedAt, soonestExpiry, failures, failingSince } = Item.parse(item ?? {});
  return {
    failures,
    ...(reachedAt !== undefined && { reachedAt }),
    ...(soonestExpiry !== undefined && { soonestExpiry }),
    ...(failingSince !== undefined && { failingSince }),
  };
}

/**
 * The update that a look makes. Times are RFC 3339 in UTC with milliseconds, which sort as text: people read the table,
 * too.
 */
function updateFor(look: Look) {
  const { at, served, failed, isPaused = false, reason, managed, due, soonestExpiry, tokenExpiresAt } = look;
  const set: string[] = [];
  const remove: string[] = [];
  const values: Record<string, AttributeValue> = {};
  const text = (name: string, value: string) => {
    set.push(`#${name} = :${name}`);
    values[`:${name}`] = { S: value };
  };
  const number = (name: string, value: number) => {
    set.push(`#${name} = :${name}`);
    values[`:${name}`] = { N: String(value) };
  };
  const once = (name: string, value: string) => {
    set.push(`#${name} = if_not_exists(#${name}, :${name})`);
    values[`:${name}`] = { S: value };
  };
  const time = new Date(at).toISOString();
  text(MEMORY.lookedAt, time);
  number(MEMORY.forgetAt, Math.round(at / 1000) + FORGET_AFTER_DAYS * 86_400);

  if (isPaused) once(MEMORY.pausedSince, time);
  else remove.push(MEMORY.pausedSince);
  if (served) {
    text(MEMORY.reachedAt, time);
    number(MEMORY.managed, managed);
    number(MEMORY.due, due);
  }
  if (soonestExpiry === null) remove.push(MEMORY.soonestExpiry);
  else if (soonestExpiry !== undefined) text(MEMORY.soonestExpiry, new Date(soonestExpiry).toISOString());
  if (tokenExpiresAt === undefined) remove.push(MEMORY.tokenExpiresAt);
  else text(MEMORY.tokenExpiresAt, new Date(tokenExpiresAt).toISOString());
  if (failed) {
    set.push(`#${MEMORY.failures} = if_not_exists(#${MEMORY.failures}, :zero) + :one`);
    values[':zero'] = { N: '0' };
    values[':one'] = { N: '1' };
    once(MEMORY.failingSince, time);
    text(MEMORY.reason, (reason ?? '').slice(0, REASON_LENGTH));
  } else {
    set.push(`#${MEMORY.failures} = :zero`);
    values[':zero'] = { N: '0' };
    remove.push(MEMORY.failingSince, MEMORY.reason);
  }

  const UpdateExpression = [
    `SET ${set.join(', ')}`,
    ...(remove.length > 0 ? [`REMOVE ${remove.map((name) => `#${name}`).join(', ')}`] : []),
  ].join(' ');
  const names = new Set(UpdateExpression.matchAll(/#(\w+)/g).map(([, name = '']) => name));
  return {
    UpdateExpression,
    // A look that is made twice, as the SDK tries again, counts once.
    ConditionExpression: `attribute_not_exists(#${MEMORY.lookedAt}) OR #${MEMORY.lookedAt} < :${MEMORY.lookedAt}`,
    ExpressionAttributeNames: Object.fromEntries([...names].map((name) => [`#${name}`, name])),
    ExpressionAttributeValues: values,
  };
}
