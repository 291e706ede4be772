// Simulates a fleet on a virtual clock: days of scheduled runs over thousands of clusters. The rules are the project's own
// code; only the network, the API servers and AWS are simulated.
import { MAX_INTERVAL_MS } from '../../contract/freshness.ts';
import { clusterStates } from '../../functions/refresher/clusters/cluster-state.ts';
import { announce } from '../../functions/refresher/run/announcements.ts';
import {
  type ClusterReport,
  notServed,
  observationOf,
  paused,
  withoutDetails,
} from '../../functions/refresher/run/cluster-report.ts';
import { bySoonestExpiry } from '../../functions/refresher/run/order.ts';
import { metricsOf, runFailure } from '../../functions/refresher/run/whole-run.ts';
import { REPORTING_SECONDS, STATE_ATTRIBUTE } from '../../functions/refresher/settings.ts';
import { type ClusterSettings, SimulatedCluster } from './cluster.ts';
import { Ecr, type EcrSettings } from './ecr.ts';
import { randomFrom } from './random.ts';
import { tableInMemory } from './table.ts';

/** A cluster of the fleet. Times are milliseconds since the epoch. */
export interface Member {
  readonly name: string;
  /** Before, it is not registered. */
  readonly registeredAt: number;
  readonly isPaused: (at: number) => boolean;
  /** @param left the remaining life of its Secret that expires first, in milliseconds */
  readonly isReachable: (at: number, left: number) => boolean;
  /** When the webhook wrote the credentials of its Secrets. */
  readonly createdAt: number;
}

export interface SimulationSettings extends ClusterSettings {
  readonly seed: number;
  readonly startsAt: number;
  readonly endsAt: number;
  /** The time between two runs, and in which time from the planned one a run starts; milliseconds. */
  readonly intervalMs: number;
  readonly flexibleWindowMs: number;
  /** Of the function, and of a cluster run; milliseconds. */
  readonly timeoutMs: number;
  readonly clusterDeadlineMs: number;
  /** Clusters that a function serves at the same time. */
  readonly concurrency: number;
  /** Clusters of one function, and functions at the same time. */
  readonly batch: number;
  readonly functions: number;
  /** Of a function: AWS gives it a processor for each 1,769 MB (Lambda Developer Guide, "Configure Lambda function memory"). */
  readonly memoryMb: number;
  /** Processor time, in milliseconds: of a cluster that is served, and of a PATCH. */
  readonly processor: { readonly cluster: number; readonly patch: number };
  /** How long a request to DynamoDB, EventBridge or SNS takes. */
  readonly awsMs: number;
  readonly ecr: EcrSettings;
  /** No run starts while it is down. @param at milliseconds since the epoch */
  readonly isRefresherDown: (at: number) => boolean;
}

export interface SimulatedRunResult {
  readonly startedAt: number;
  /** When the last cluster run ended, and when all was announced. */
  readonly servedAt: number;
  readonly endedAt: number;
  /** The time of all functions together, in milliseconds. */
  readonly functionMs: number;
  readonly clusters: number;
  readonly served: number;
  readonly failed: number;
  /** Those that were not started before the time was up. */
  readonly notStarted: number;
  readonly refreshed: number;
  /** The metric `SoonestExpiry`, in seconds. */
  readonly soonestExpiry: number | undefined;
  readonly hasFailed: boolean;
}

export interface Announcement {
  readonly at: number;
  readonly cluster: string;
  readonly transition: string;
  /** The remaining life of the cluster's Secret that expires first, in milliseconds. */
  readonly left: number;
}

export interface SimulationResult {
  readonly runs: readonly SimulatedRunResult[];
  readonly announcements: readonly Announcement[];
  /** SNS messages. */
  readonly messages: readonly { readonly at: number; readonly subject: string }[];
  /** Calls to ECR by second since the epoch. */
  readonly ecrCalls: ReadonlyMap<number, number>;
  readonly ecrThrottled: number;
  /** By cluster: the least remaining life that one of its Secrets has had, in milliseconds. */
  readonly leastLeft: ReadonlyMap<string, number>;
  /** By cluster: when it failed for the first time. */
  readonly firstFailures: ReadonlyMap<string, number>;
  readonly tableWrites: number;
}

/** A run uses one processor at most: Node.js runs the code of the project in one thread. */
const MB_OF_A_PROCESSOR = 1769;
const COMMANDS = { region: 'us-east-1', stackName: 'EcrAnywhere' };
/** DynamoDB requests of announcements at the same time, and events: ten requests with ten entries each. */
const AT_ONCE = 25;
const EVENTS_AT_ONCE = 100;

/** @param onRun called after each run */
export async function simulate(
  fleet: readonly Member[],
  settings: SimulationSettings,
  onRun: (run: SimulatedRunResult) => void = () => {},
): Promise<SimulationResult> {
  const { startsAt, endsAt, intervalMs, flexibleWindowMs } = settings;
  if (intervalMs > MAX_INTERVAL_MS) throw new Error('the interval is longer than the CDK app allows');
  const simulation = new Simulation(fleet, settings);
  const random = randomFrom(settings.seed);
  for (let plannedAt = startsAt; plannedAt < endsAt; plannedAt += intervalMs) {
    const startedAt = plannedAt + Math.floor(random() * flexibleWindowMs);
    if (!settings.isRefresherDown(startedAt)) onRun(await simulation.run(startedAt));
  }
  return simulation.result();
}

class Simulation {
  readonly #fleet: readonly Member[];
  readonly #settings: SimulationSettings;
  readonly #ecr: Ecr;
  readonly #clusters: ReadonlyMap<string, SimulatedCluster>;
  readonly #table = tableInMemory(STATE_ATTRIBUTE.cluster);
  readonly #states = clusterStates(this.#table.client, 'cluster-state');
  readonly #signal = new AbortController().signal;
  readonly #firstFailures = new Map<string, number>();
  readonly #runs: SimulatedRunResult[] = [];
  readonly #announcements: Announcement[] = [];
  readonly #messages: { at: number; subject: string }[] = [];

  constructor(fleet: readonly Member[], settings: SimulationSettings) {
    this.#fleet = fleet;
    this.#settings = settings;
    const ecr = new Ecr(settings.ecr);
    this.#ecr = ecr;
    this.#clusters = new Map(
      fleet.map(({ name, createdAt }) => [name, new SimulatedCluster(name, ecr, settings, createdAt)]),
    );
  }

  async run(startedAt: number): Promise<SimulatedRunResult> {
    const order = bySoonestExpiry(await this.#states.load(this.#signal));
    const registered = this.#fleet.filter(({ registeredAt }) => registeredAt <= startedAt);
    const queue = registered.toSorted((a, b) => order(a.name, b.name));
    const { timeoutMs, concurrency, batch } = this.#settings;
    const functions = new Slots(this.#settings.functions, startedAt);
    const reports: ClusterReport[] = [];
    let functionMs = 0;
    for (let start = 0; start < queue.length; start += batch) {
      const from = functions.next();
      const endsAt = from + timeoutMs - REPORTING_SECONDS * 1000;
      const slots = new Slots(concurrency, from);
      const processor = new Slots(1, from);
      for (const member of queue.slice(start, start + batch)) {
        const at = slots.next();
        const { report, endedAt } = await this.#serve(member, at, endsAt);
        // Clusters that are served at the same time share the function's processor.
        processor.take(Math.max(at, processor.last) + this.#processorMs(report));
        slots.take(Math.min(Math.max(endedAt, processor.last), Math.max(endsAt, at)));
        if (report.failed && !this.#firstFailures.has(member.name)) this.#firstFailures.set(member.name, at);
        const state = await this.#states.save(observationOf(report, at), this.#signal);
        reports.push({ ...withoutDetails(report), state });
      }
      functionMs += slots.last - from;
      functions.take(slots.last);
    }
    const servedAt = functions.last;
    const endedAt = servedAt + (await this.#announce(reports, servedAt));
    const count = (has: (report: ClusterReport) => boolean) => reports.filter(has).length;
    const metrics = metricsOf(reports, servedAt);
    const result = {
      startedAt,
      servedAt,
      endedAt,
      functionMs: functionMs + endedAt - servedAt,
      clusters: reports.length,
      served: count(({ served }) => served),
      failed: count(({ failed }) => failed),
      notStarted: count(({ codes }) => codes?.includes('run-time-up') ?? false),
      refreshed: metrics.SecretsRefreshed ?? 0,
      soonestExpiry: metrics.SoonestExpiry,
      hasFailed: runFailure(reports) !== undefined,
    };
    this.#runs.push(result);
    return result;
  }

  result(): SimulationResult {
    const clusters = [...this.#clusters.values()];
    for (const cluster of clusters) cluster.end(this.#settings.endsAt);
    return {
      runs: this.#runs,
      announcements: this.#announcements,
      messages: this.#messages,
      ecrCalls: this.#ecr.calls,
      ecrThrottled: this.#ecr.throttled,
      leastLeft: new Map(clusters.map(({ name, leastLeft }) => [name, leastLeft])),
      firstFailures: this.#firstFailures,
      tableWrites: this.#table.writes,
    };
  }

  async #serve(
    { name, isPaused, isReachable }: Member,
    at: number,
    endsAt: number,
  ): Promise<{ report: ClusterReport; endedAt: number }> {
    const cluster = this.#cluster(name);
    const { awsMs, clusterDeadlineMs } = this.#settings;
    if (isPaused(at)) return { report: paused(name), endedAt: at + awsMs };
    if (at >= endsAt)
      return {
        report: notServed(name, [{ code: 'run-time-up', reason: 'the run reached its time limit' }]),
        endedAt: at,
      };
    const deadline = Math.min(at + clusterDeadlineMs, endsAt);
    const { report, endedAt } = await cluster.refresh(at, deadline, isReachable(at, cluster.left(at)));
    return { report, endedAt: endedAt + awsMs };
  }

  #processorMs({ served, results }: ClusterReport): number {
    const { memoryMb, processor } = this.#settings;
    const share = Math.min(1, memoryMb / MB_OF_A_PROCESSOR);
    return served ? (processor.cluster + results.length * processor.patch) / share : 0;
  }

  /** @returns how long it takes, in milliseconds */
  async #announce(reports: readonly ClusterReport[], at: number): Promise<number> {
    let requests = 0;
    const publisher = {
      events: async (entries: readonly unknown[]) => {
        requests += Math.ceil(entries.length / EVENTS_AT_ONCE);
        return entries.map(() => undefined);
      },
      message: async (subject: string) => {
        requests += 1;
        this.#messages.push({ at, subject });
      },
    };
    const { announced } = await announce(reports, this.#states, publisher, COMMANDS, at);
    for (const { cluster, transition } of announced)
      this.#announcements.push({ at, cluster, transition, left: this.#cluster(cluster).left(at) });
    return (requests + 2 * Math.ceil(announced.length / AT_ONCE)) * this.#settings.awsMs;
  }

  #cluster(name: string): SimulatedCluster {
    const cluster = this.#clusters.get(name);
    if (!cluster) throw new Error(`no cluster ${name}`);
    return cluster;
  }
}

/** The places for clusters that are served at the same time: a binary heap of the times at which they are free. */
class Slots {
  readonly #freeAt: number[];
  /** When the last cluster run ends. */
  last: number;

  constructor(count: number, at: number) {
    this.#freeAt = Array.from({ length: count }, () => at);
    this.last = at;
  }

  /** When the next place is free. */
  next(): number {
    return this.#freeAt[0] ?? this.last;
  }

  /** Takes the place that is free next. */
  take(until: number): void {
    const heap = this.#freeAt;
    this.last = Math.max(this.last, until);
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if ((heap[child + 1] ?? Number.POSITIVE_INFINITY) < (heap[child] ?? Number.POSITIVE_INFINITY))
        child += 1;
      const value = heap[child];
      if (value === undefined || value >= until) break;
      heap[index] = value;
      index = child;
    }
    heap[index] = until;
  }
}
