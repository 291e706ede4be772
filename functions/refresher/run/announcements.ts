// Announces what changed with the clusters: an event for each to EventBridge, and messages for all of a run to SNS.
import pMap from 'p-map';
import {
  type ClusterTransition,
  CONDITIONS,
  type Condition,
  EVENT_SOURCE,
  EVENT_TYPE,
  type Transition,
} from '../../../contract/cluster-events.ts';
import { DEFAULT_STACK_NAME } from '../../../contract/keyless.ts';
import { isDiscoveryTarget } from '../access/eks.ts';
import type { AnnouncementStore, ClusterState } from '../clusters/cluster-state.ts';
import { type ClusterReport, soonestExpiryOf } from './cluster-report.ts';
import { type Decision, decide } from './transitions.ts';

/** Where announcements go. */
export interface Publisher {
  /** Sends events. @returns for each, why it was not accepted; undefined if it was */
  events(entries: readonly EventEntry[]): Promise<(string | undefined)[]>;
  /** Sends one message to the topic. @throws Error of SNS */
  message(subject: string, text: string): Promise<void>;
}

export interface EventEntry {
  readonly source: string;
  readonly type: string;
  readonly detail: ClusterTransition;
}

/** For the commands in announcements. */
export interface CommandSettings {
  readonly region: string;
  readonly stackName: string;
}

export interface AnnouncementResult {
  readonly announced: readonly { readonly cluster: string; readonly transition: string }[];
  readonly failures: readonly { readonly cluster: string; readonly reason: string }[];
}

/** DynamoDB requests at the same time. */
const CONCURRENCY = 25;
/** Clusters in one message: SNS takes 256 KB, and a person reads fewer. */
const CLUSTERS_PER_MESSAGE = 100;
/** Characters of a cluster's reason in a message. */
const REASON_LENGTH = 300;

interface Pending {
  readonly cluster: string;
  readonly decision: Decision;
  readonly detail: ClusterTransition | undefined;
}

/**
 * Announces the transitions of the clusters whose state this run stored. A transition whose message is refused is announced
 * by the next run, with an event of the same id; an event that is refused is not repeated. If a run ends between the
 * announcement and the note of it, the next run announces it again.
 *
 * @param now milliseconds since the epoch
 */
export async function announce(
  reports: readonly (Pick<ClusterReport, 'cluster' | 'state'> & Parameters<typeof soonestExpiryOf>[0])[],
  store: AnnouncementStore,
  publisher: Publisher,
  settings: CommandSettings,
  now: number,
): Promise<AnnouncementResult> {
  const failures: { cluster: string; reason: string }[] = [];
  const attempt = async <T>(cluster: string, request: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await request();
    } catch (error) {
      failures.push({ cluster, reason: String(error) });
      return undefined;
    }
  };

  const decided = reports.flatMap((report) => {
    const { cluster, state: stored } = report;
    if (!stored) return [];
    // The stored expiry is of a complete listing; a cluster that is only listed in part may have none.
    const state = { ...stored, soonestExpiry: soonestExpiryOf(report) };
    const decision = decide(state, now);
    return decision ? [{ cluster, decision, state }] : [];
  });
  const reserved = await pMap(
    decided,
    async ({ cluster, decision, state }): Promise<Pending[]> => {
      const isOurs = await attempt(cluster, () => store.reserve(cluster, state.announcedAt, now));
      return isOurs ? [{ cluster, decision, detail: detailOf(cluster, decision, state, settings) }] : [];
    },
    { concurrency: CONCURRENCY },
  );
  const pending = reserved.flat();

  const withEvents = pending.filter(({ decision }) => isTransition(decision.transition));
  const entries = withEvents.flatMap(({ detail }) =>
    detail ? [{ source: EVENT_SOURCE, type: EVENT_TYPE, detail }] : [],
  );
  const refusals = entries.length > 0 ? await publisher.events(entries) : [];
  for (const [index, { cluster }] of withEvents.entries()) {
    const reason = refusals[index];
    if (reason !== undefined) failures.push({ cluster, reason });
  }

  // People get the message even if machines do not get the event, and only a message that is refused is repeated.
  const failed = new Map<string, string>();
  const told = pending.filter(({ detail }) => detail);
  for (let start = 0; start < told.length; start += CLUSTERS_PER_MESSAGE) {
    const part = told.slice(start, start + CLUSTERS_PER_MESSAGE);
    try {
      await publisher.message(subjectOf(part), textOf(part));
    } catch (error) {
      for (const { cluster } of part) failed.set(cluster, String(error));
    }
  }

  await pMap(
    pending,
    ({ cluster, decision: { announced, startsQuietDay = false } }) =>
      attempt(cluster, () =>
        store.settle(cluster, now, failed.has(cluster) ? undefined : { announced, startsQuietDay }),
      ),
    { concurrency: CONCURRENCY },
  );
  for (const [cluster, reason] of failed) failures.push({ cluster, reason });
  return {
    announced: told.flatMap(({ cluster, decision }) =>
      decision.transition && !failed.has(cluster) ? [{ cluster, transition: decision.transition }] : [],
    ),
    failures,
  };
}

function isTransition(transition: Decision['transition']): transition is Transition {
  return transition !== undefined && transition !== 'reminder';
}

function detailOf(
  cluster: string,
  { transition, conditions }: Decision,
  state: ClusterState,
  { region, stackName }: CommandSettings,
): ClusterTransition | undefined {
  if (transition === undefined) return undefined;
  const time = (ms: number | undefined) => (ms === undefined ? undefined : new Date(ms).toISOString());
  const options = `--region ${region}${stackName === DEFAULT_STACK_NAME ? '' : ` --stack-name ${stackName}`}`;
  return {
    id: `${cluster}/${transition}/${time(state.announcedAt) ?? 'first'}`,
    cluster,
    transition: transition === 'reminder' ? (conditions.at(-1) ?? 'failing') : transition,
    conditions,
    reason: state.reason,
    ...(state.codes.length > 0 && { codes: state.codes }),
    ...(state.failures > 0 && { failures: state.failures }),
    failingSince: time(state.failingSince),
    soonestExpiry: time(state.soonestExpiry),
    tokenExpiresAt: time(state.tokenExpiresAt),
    command: `ecr-anywhere ${isDiscoveryTarget(cluster) ? 'doctor' : `doctor ${cluster}`} ${options}`,
  };
}

const WORDS: Readonly<Record<Condition, string>> = {
  failing: 'failing',
  'token-ending': 'about to lose its token',
  expiring: 'about to lose its pulls',
  expired: 'without valid credentials',
};

/** The kind of a message's section, the most urgent first. */
const SECTIONS = [...CONDITIONS].reverse();

const HEADINGS: Readonly<Record<Transition | 'reminder', string>> = {
  expired: 'Credentials have expired: new Pods cannot pull.',
  expiring: 'Credentials expire within three hours, and every refresh has failed since they became due.',
  'token-ending':
    "The refresher's token was not renewed, and ends at the time below. Register the cluster again before it does.",
  failing:
    'Failed at least twice in a row. Running Pods are not affected; pulls fail when the credentials expire.',
  recovered: 'Recovered.',
  reminder:
    'Announced before and not recovered: a reminder once a day. To silence a cluster: ecr-anywhere pause NAME',
};

function subjectOf(pending: readonly Pending[]): string {
  const sections = sectionsOf(pending);
  const [first] = sections.flatMap(([, clusters]) => clusters);
  const [kind] = sections.map(([name]) => name);
  const word = kind === undefined || kind === 'recovered' ? 'has recovered' : `is ${wordOf(kind)}`;
  const more = pending.length - 1;
  // SNS: fewer than 100 ASCII characters.
  const name = (first?.cluster ?? '').replaceAll(/[^\x20-\x7e]/g, '?');
  const rest = ` ${word}${more > 0 ? ` (and ${more} more)` : ''}`;
  return `ECR Anywhere: ${name.slice(-(84 - rest.length))}${rest}`;
}

function wordOf(kind: Condition | 'reminder'): string {
  return kind === 'reminder' ? 'still failing' : WORDS[kind];
}

function sectionsOf(pending: readonly Pending[]): [Transition | 'reminder', Pending[]][] {
  const kinds = [...SECTIONS, 'reminder', 'recovered'] as const;
  return kinds.flatMap((kind): [Transition | 'reminder', Pending[]][] => {
    const clusters = pending.filter(({ decision }) => decision.transition === kind);
    return clusters.length > 0 ? [[kind, clusters]] : [];
  });
}

function textOf(pending: readonly Pending[]): string {
  return sectionsOf(pending)
    .map(([kind, clusters]) => [HEADINGS[kind], '', ...clusters.flatMap(linesOf)].join('\n'))
    .join('\n');
}

function linesOf({ detail }: Pending): string[] {
  if (!detail) return [];
  const { cluster, transition, reason, failingSince, soonestExpiry, tokenExpiresAt, command } = detail;
  return [
    cluster,
    ...(failingSince === undefined ? [] : [`  failing since: ${failingSince}`]),
    ...(soonestExpiry === undefined ? [] : [`  credentials expire: ${soonestExpiry}`]),
    ...(transition === 'token-ending' && tokenExpiresAt !== undefined
      ? [`  token ends: ${tokenExpiresAt}`]
      : []),
    ...(reason === undefined ? [] : [`  reason: ${reason.slice(0, REASON_LENGTH)}`]),
    ...(transition === 'recovered' ? [] : [`  run: ${command}`]),
    '',
  ];
}
