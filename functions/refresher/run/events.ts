// Writes Events on Secrets whose credentials were not refreshed, or are refreshed again, for the owner of the namespace. An Event's name
// depends on what it says, so the API server keeps one for each state, and the refresher needs neither a store nor a right to
// read Events.
import { createHash } from 'node:crypto';
import pMap from 'p-map';
import {
  type DenialReason,
  isTokenFailure,
  registryOf,
  type TokenFailure,
} from '../../../contract/denials.ts';
import { freshness, MAX_BETWEEN_LOOKS_MS, REFRESH_WINDOW_MS } from '../../../contract/freshness.ts';
import { ANNOTATION } from '../../../contract/names.ts';
import type { FailureCode, SecretResult } from '../../../contract/refresher-api.ts';
import { abortable } from '../../../lib/abort.ts';
import { type KubernetesApi, KubernetesError, type SecretEvent } from '../kubernetes/client.ts';
import { type EventsReport, type Failure, failureOf } from './cluster-report.ts';
import type { Refresh } from './plan.ts';

/** The Events of one cluster run. The first ones are of as many namespaces as possible, as the requests are. */
export const MAX_EVENTS = 50;
const EVENTS_AT_ONCE = 4;
/** The time for all Events of a cluster run, so that a slow API server does not delay other clusters. */
const EVENTS_WITHIN_MS = 10_000;
/** Kubernetes' limits for an Event's note (bytes) and name. */
const MAX_NOTE_BYTES = 1024;
const MAX_NAME_LENGTH = 253;

/** The time left when a healthy Secret is refreshed at the latest. With less, refreshes failed before. */
const HEALTHY_LEFT_MS = REFRESH_WINDOW_MS - MAX_BETWEEN_LOOKS_MS;

/** After these failures, an Event would fail in the same way. */
const NO_API_SERVER: ReadonlySet<FailureCode> = new Set([
  'cluster-time-up',
  'run-ended',
  'unreachable',
  'unexpected-response',
  'too-much-data',
  'unauthorized',
  'throttled',
]);

/** The requests for Events. */
export type EventsApi = Pick<KubernetesApi, 'isAllowed' | 'createEvent'>;

/**
 * The Events of a cluster run. Each user who may read the namespace's Events reads them, so they say only what
 * concerns the Secret: codes, registries, and the webhook's own sentences about the Secret; no text of other systems, which may
 * name other namespaces, addresses or AWS principals.
 *
 * @param results of the refreshes, in their order
 * @param stoppedBy why the run of a namespace ended early
 */
export function eventsOf(
  refreshes: readonly Refresh[],
  results: readonly SecretResult[],
  stoppedBy: (namespace: string) => Failure | undefined,
  now: number,
): SecretEvent[] {
  return refreshes.flatMap(({ secret }, index) => {
    const { namespace, name, uid, annotations } = secret;
    const result = results[index];
    const text = result && eventText(annotations[ANNOTATION.expiresAt], result, stoppedBy(namespace), now);
    if (!text) return [];
    const note = shortened(text.note);
    return [
      {
        secret: { namespace, name, ...(uid !== undefined && { uid }) },
        name: eventName(name, [uid, text.reason, note]),
        type: text.reason === 'RefreshRecovered' ? 'Normal' : 'Warning',
        reason: text.reason,
        note,
        at: now,
      },
    ];
  });
}

interface EventText {
  readonly reason: 'RefreshFailed' | 'RefreshPartial' | 'RefreshRecovered';
  readonly note: string;
}

/**
 * @param before the expiry before the request
 * @param stop why the run of the namespace ended early
 */
function eventText(
  before: string | undefined,
  result: SecretResult,
  stop: Failure | undefined,
  now: number,
): EventText | undefined {
  const left = (freshness(before, now).expiresAt ?? Number.POSITIVE_INFINITY) - now;
  switch (result.outcome) {
    case 'refused':
      return { reason: 'RefreshFailed', note: `${refusal(result)} ${expiry(before, now)}` };
    case 'not-mutated':
      return {
        reason: 'RefreshFailed',
        note:
          "The API server did not call the webhook (not-mutated): does the webhook's configuration select this namespace? " +
          expiry(before, now),
      };
    case 'not-attempted': {
      // With more time left, the next run attempts it.
      if (left >= HEALTHY_LEFT_MS) return undefined;
      return {
        reason: 'RefreshFailed',
        note: `The refresher did not get to this Secret, because its requests for others failed (${stop?.code ?? 'unknown'}). ${expiry(before, now)}`,
      };
    }
    case 'partial': {
      const registries = result.registries?.join(', ') ?? 'some registries';
      return {
        reason: 'RefreshPartial',
        note: `The credentials of ${registries} were not refreshed. ${expiry(result.expiresAt, now)}`,
      };
    }
    case 'refreshed':
      if (left >= HEALTHY_LEFT_MS) return undefined;
      return {
        reason: 'RefreshRecovered',
        note: `The credentials were refreshed ${left > 0 ? 'shortly before' : 'after'} their expiry, and now expire at ${result.expiresAt}.`,
      };
    default:
      return undefined;
  }
}

/** The denials whose message is about the Secret alone (webhook/admission/decision.ts). */
const ABOUT_THE_SECRET: ReadonlySet<string> = new Set<DenialReason>([
  'refresher-out-of-bounds',
  'wrong-type',
  'immutable',
  'not-a-docker-config',
  'policy-invalid',
  'not-entitled',
  'too-large',
]);

const NO_TOKEN: Readonly<Record<TokenFailure, string>> = {
  'aws-no-identity': 'the webhook has no AWS credentials',
  'aws-role-denied': 'AWS does not let the webhook assume the role of this registry',
  'ecr-denied': "ECR refuses the webhook's AWS principal",
  'ecr-throttled': 'ECR throttles the requests',
  'ecr-unavailable': 'ECR does not answer',
  'ecr-error': 'ECR returned no usable token',
};

function refusal({ code = 'unknown', causes = [] }: SecretResult): string {
  const tokens = causes.flatMap((cause) =>
    isTokenFailure(cause.reason)
      ? [`${registryOf(cause) ?? "the webhook's own registry"}: ${NO_TOKEN[cause.reason]} (${cause.reason})`]
      : [],
  );
  if (tokens.length > 0) return `The webhook got no new credentials: ${tokens.join('; ')}.`;
  const [cause] = causes;
  if (cause && ABOUT_THE_SECRET.has(cause.reason)) return cause.message;
  if (cause) return `The webhook denied the request (${cause.reason}).`;
  if (code === 'webhook-unreachable')
    return 'The API server could not call an admission webhook (webhook-unreachable).';
  return `The API server refused the request (${code}).`;
}

function expiry(annotation: string | undefined, now: number): string {
  const { expiresAt } = freshness(annotation, now);
  if (expiresAt === undefined) return 'The Secret states no expiry.';
  return `The credentials ${expiresAt > now ? 'expire' : 'expired'} at ${annotation}.`;
}

function shortened(note: string): string {
  if (Buffer.byteLength(note) <= MAX_NOTE_BYTES) return note;
  // A character that is cut becomes one of three bytes, as many as the ellipsis.
  return `${Buffer.from(note)
    .subarray(0, MAX_NOTE_BYTES - 6)
    .toString()}…`;
}

/** The same for the same state of the same Secret; otherwise another one. */
function eventName(secret: string, state: readonly (string | undefined)[]): string {
  const hash = createHash('sha256').update(JSON.stringify(state)).digest('hex').slice(0, 16);
  const beginning = secret.slice(0, MAX_NAME_LENGTH - hash.length - 1).replace(/[-.]+$/, '');
  return `${beginning}.${hash}`;
}

/**
 * Writes Events, if the API server lets the refresher create any (chart value `events.enabled`). Never rejects.
 *
 * @param failures of the cluster run
 * @param signal ends it
 * @returns undefined if the refresher may not create Events, or had none to write
 */
export async function writeEvents(
  api: EventsApi,
  events: readonly SecretEvent[],
  failures: readonly Failure[],
  signal: AbortSignal,
): Promise<EventsReport | undefined> {
  const [first] = events;
  if (!first || signal.aborted || failures.some(({ code }) => NO_API_SERVER.has(code))) return undefined;
  const inTime = AbortSignal.any([signal, AbortSignal.timeout(EVENTS_WITHIN_MS)]);
  let written = 0;
  let present = 0;
  let reason: string | undefined;
  const write = async (event: SecretEvent) => {
    if (inTime.aborted) return;
    try {
      await api.createEvent(event);
      written += 1;
    } catch (error) {
      if (error instanceof KubernetesError && error.status === 409) present += 1;
      else reason ??= failureOf(error).reason;
    }
  };
  try {
    const { namespace } = first.secret;
    const permission = { verb: 'create', group: 'events.k8s.io', resource: 'events', namespace };
    if (!(await abortable(api.isAllowed(permission), inTime))) return undefined;
    await abortable(pMap(events.slice(0, MAX_EVENTS), write, { concurrency: EVENTS_AT_ONCE }), inTime);
  } catch (error) {
    reason ??= inTime.aborted ? 'the time for Events was up' : failureOf(error).reason;
  }
  const notWritten = events.length - written - present;
  if (notWritten > 0) reason ??= `a run writes at most ${MAX_EVENTS} Events to a cluster`;
  if (written === 0 && notWritten === 0) return undefined;
  return { written, notWritten, ...(reason !== undefined && { reason }) };
}
