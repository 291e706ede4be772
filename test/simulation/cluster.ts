// A cluster in a simulation: its Secrets, and the webhook's replicas with the project's own rules for tokens. It answers
// the refresher's requests at once, and computes how long they would have taken.
import { formatTime, freshness, parseTime, TOKEN_LIFETIME_MS } from '../../contract/freshness.ts';
import { ANNOTATION } from '../../contract/names.ts';
import { KubernetesError, type ManagedSecret } from '../../functions/refresher/kubernetes/client.ts';
import { PATCHES_AT_ONCE, refreshCluster, type SecretsApi } from '../../functions/refresher/run/cluster.ts';
import type { ClusterReport } from '../../functions/refresher/run/cluster-report.ts';
import { jitterOf } from '../../functions/refresher/run/plan.ts';
import { isNewer } from '../../webhook/admission/decision.ts';
import { THROTTLED_FROM } from '../../webhook/aws/ecr.ts';
import { EcrTokens } from '../../webhook/aws/ecr-tokens.ts';
import { TokenError } from '../../webhook/aws/token-error.ts';
import type { Ecr, SimulatedToken } from './ecr.ts';

export interface ClusterSettings {
  readonly secrets: number;
  /** Of the webhook. */
  readonly replicas: number;
  /** How long requests take, in milliseconds. */
  readonly latencies: {
    /** A connection to an API server. */
    readonly connect: number;
    readonly list: number;
    /** A PATCH, with the call of the webhook. */
    readonly patch: number;
    /** A token from ECR. */
    readonly ecr: number;
    /** Until an API server counts as unreachable. */
    readonly unreachable: number;
    /** Until the webhook gives up waiting for ECR. */
    readonly noToken: number;
  };
}

const REGISTRY = {
  source: { service: 'ecr', region: 'us-east-1' },
  host: '123456789012.dkr.ecr.us-east-1.amazonaws.com',
} as const;
const REFRESH = { dryRun: false, force: false };
const SECRETS_PER_NAMESPACE = 10;

export class SimulatedCluster {
  readonly name: string;
  /** The least remaining life that one of its Secrets has had, in milliseconds: negative if its credentials had expired. */
  leastLeft = Number.POSITIVE_INFINITY;
  readonly #settings: ClusterSettings;
  readonly #secrets: Map<string, ManagedSecret[]>;
  readonly #replicas: readonly EcrTokens[];
  readonly #jitterMs: number;
  #clock = new RunClock(0);
  /** The soonest expiry of all its Secrets, in milliseconds since the epoch. */
  #soonest = 0;

  /** @param createdAt when the webhook wrote the credentials of its Secrets, in milliseconds since the epoch */
  constructor(name: string, ecr: Ecr, settings: ClusterSettings, createdAt: number) {
    this.name = name;
    this.#jitterMs = jitterOf(name);
    this.#settings = settings;
    const { latencies, replicas, secrets } = settings;
    // As webhook/aws/ecr.ts does: a throttled call is repeated once.
    const fetch = async () => {
      const at = this.#clock.sentAt;
      for (const waitMs of [0, THROTTLED_FROM * latencies.noToken])
        try {
          const token = ecr.token(at + waitMs);
          this.#clock.wait(waitMs + latencies.ecr);
          return token;
        } catch (error) {
          const isThrottled = error instanceof TokenError && error.reason === 'ecr-throttled';
          this.#clock.wait(isThrottled ? waitMs + latencies.ecr : latencies.noToken);
          if (!isThrottled || waitMs > 0) throw error;
        }
      throw new Error('no attempt');
    };
    this.#replicas = Array.from(
      { length: replicas },
      () => new EcrTokens(fetch, latencies.noToken, () => this.#clock.now),
    );
    const annotations = { [ANNOTATION.expiresAt]: formatTime(createdAt + TOKEN_LIFETIME_MS) };
    const created = Array.from({ length: secrets }, (_, index) => ({
      namespace: `team-${Math.floor(index / SECRETS_PER_NAMESPACE)}`,
      name: `pull-${index}`,
      annotations,
    }));
    this.#secrets = Map.groupBy<string, ManagedSecret>(created, ({ namespace }) => namespace);
    this.#soonest = this.#first().expiresAt;
  }

  /** The remaining life of the Secret that expires first, in milliseconds. */
  left(at: number): number {
    return this.#soonest - at;
  }

  /** Ends the simulation of the cluster. */
  end(at: number): void {
    this.leastLeft = Math.min(this.leastLeft, this.left(at));
  }

  /**
   * One cluster run, by the refresher's rules.
   *
   * @param at when it starts, in milliseconds since the epoch
   * @param endsAt when its time is up
   * @returns its report, and when it ended
   */
  async refresh(
    at: number,
    endsAt: number,
    isReachable: boolean,
  ): Promise<{ report: ClusterReport; endedAt: number }> {
    const { connect, list, patch, unreachable } = this.#settings.latencies;
    this.leastLeft = Math.min(this.leastLeft, this.left(at));
    const clock = new RunClock(at);
    this.#clock = clock;
    const ended = new AbortController();
    // A cluster none of whose Secrets is due has the same result with the one that is due first as with all of them.
    const isDue = freshness(formatTime(this.#soonest), at, this.#jitterMs).due;
    const listed = isDue ? this.#secrets : Map.groupBy([this.#first().secret], ({ namespace }) => namespace);
    let lists = 0;
    let patches = 0;
    const api: SecretsApi = {
      enabledNamespaces: async () => {
        clock.pass(isReachable ? connect + list : unreachable);
        if (isReachable) return [...this.#secrets.keys()];
        throw new KubernetesError('GET /api/v1/namespaces', 'no connection within 10 s', {
          affects: 'cluster',
          code: 'unreachable',
        });
      },
      managedSecrets: async (namespace) => {
        if (lists++ % PATCHES_AT_ONCE === 0) clock.pass(list);
        return listed.get(namespace) ?? [];
      },
      // The simulated clusters have no `provision.secretName`; the review runs beside the lists.
      creatableSecret: async () => undefined,
      hasSecret: async () => true,
      createManagedSecret: () => Promise.reject(new Error('not simulated')),
      annotate: async (secret) => {
        if (patches++ % PATCHES_AT_ONCE === 0) clock.pass(patch);
        if (clock.now >= endsAt) ended.abort();
        if (ended.signal.aborted)
          throw new KubernetesError('PATCH', "no answer before the cluster's deadline", {
            affects: 'cluster',
            code: 'cluster-time-up',
          });
        const annotations = await this.#admit(secret, patches);
        return { ...this.#replace(secret, annotations), warnings: [] };
      },
      isAllowed: async () => false,
      createEvent: async () => {},
    };
    const report = await refreshCluster(this.name, api, REFRESH, at, ended.signal);
    if (isDue) this.#soonest = this.#first().expiresAt;
    return {
      report: report.served ? { ...report, managed: this.#settings.secrets } : report,
      endedAt: Math.min(clock.now, endsAt),
    };
  }

  /** The webhook's answer to a request for new credentials. @throws KubernetesError where it denies */
  async #admit({ annotations }: ManagedSecret, request: number): Promise<SimulatedToken['annotations']> {
    const replica = this.#replicas[request % this.#replicas.length];
    const kept = { expiresAt: expiryOf(annotations) };
    const left = kept.expiresAt - this.#clock.now;
    this.leastLeft = Math.min(this.leastLeft, left);
    const outcome = await replica?.obtain(REGISTRY);
    if (outcome && 'token' in outcome && (left <= 0 || isNewer(outcome, kept)))
      return (outcome.token as SimulatedToken).annotations;
    throw new KubernetesError('PATCH', 'HTTP 503: the webhook has no token that lasts longer', {
      status: 503,
      affects: 'cluster',
      code: 'webhook-denied',
    });
  }

  #replace(secret: ManagedSecret, annotations: ManagedSecret['annotations']): ManagedSecret {
    const secrets = this.#secrets.get(secret.namespace) ?? [];
    const next = { ...secret, annotations };
    secrets[secrets.findIndex(({ name }) => name === secret.name)] = next;
    return next;
  }

  #first(): { secret: ManagedSecret; expiresAt: number } {
    let first: { secret: ManagedSecret; expiresAt: number } | undefined;
    for (const secrets of this.#secrets.values())
      for (const secret of secrets) {
        const expiresAt = expiryOf(secret.annotations);
        if (!first || expiresAt < first.expiresAt) first = { secret, expiresAt };
      }
    if (!first) throw new Error('a simulated cluster needs at least one Secret');
    return first;
  }
}

const expiries = new WeakMap<ManagedSecret['annotations'], number>();

/** Many Secrets have the same annotations object. */
function expiryOf(annotations: ManagedSecret['annotations']): number {
  const known = expiries.get(annotations) ?? parseTime(annotations[ANNOTATION.expiresAt] ?? '') ?? 0;
  expiries.set(annotations, known);
  return known;
}

/** The time in a cluster run, in milliseconds since the epoch. Requests that are sent together wait together. */
class RunClock {
  now: number;
  #waitedMs = 0;

  constructor(now: number) {
    this.now = now;
  }

  /** When the requests that wait together were sent. */
  get sentAt(): number {
    return this.now - this.#waitedMs;
  }

  pass(ms: number): void {
    this.now += ms;
    this.#waitedMs = 0;
  }

  wait(ms: number): void {
    if (ms <= this.#waitedMs) return;
    this.now += ms - this.#waitedMs;
    this.#waitedMs = ms;
  }
}
