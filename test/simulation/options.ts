// Reads the options of `npm run simulate`.
import { parseArgs } from 'node:util';
import { CLUSTER_CONCURRENCY, CLUSTER_DEADLINE, INTERVAL, MEMORY } from '../../infra/limits.ts';
import type { EcrSettings } from './ecr.ts';
import type { Outage } from './fleet.ts';
import { QUOTAS } from './quotas.ts';

export const OUTAGE_KINDS = ['ecr', 'region', 'clusters'] as const;
export type OutageKind = (typeof OUTAGE_KINDS)[number];

export const USAGE = `Simulates a fleet on a virtual clock, with the project's own rules (docs/scale.md).

npm run simulate [-- OPTION VALUE ...]

  --clusters N          clusters in all (10000)
  --secrets N           managed Secrets of each (100)
  --hours N             how long (72)
  --replicas N          of each webhook (2)
  --dead N              clusters that answer for the first three hours only (100)
  --flapping N          clusters that are down for one to three hours, again and again (50)
  --paused N            clusters that are paused (50)
  --outage KIND@FROM+HOURS   from hour FROM on; again for more; "none" for none (ecr@12+3, region@32+3, clusters@52+6)
                        ecr: every call fails; region: no run starts, and ECR fails; clusters: a tenth does not answer
  --ecr-quota none|20|500    calls a second that ECR accepts (none: only counted)
  --concurrency N       clusters that a function serves at the same time (${CLUSTER_CONCURRENCY.default})
  --batch N             clusters of one function; more need several (all)
  --functions N         functions at the same time (1)
  --memory MB           of a function, which decides its share of a processor (${MEMORY.default})
  --interval MINUTES    between two runs (${INTERVAL.default})
  --flexible-window MINUTES  in which a run starts (a sixth of the interval)
  --deadline SECONDS    of a cluster run (${CLUSTER_DEADLINE.default})
  --unreachable SECONDS until an API server counts as unreachable (10)
  --installed-within HOURS   in which the Secrets were created (1)
  --seed N              of the random numbers (1)
`;

export interface Options {
  readonly clusters: number;
  readonly secrets: number;
  readonly hours: number;
  readonly replicas: number;
  readonly dead: number;
  readonly flapping: number;
  readonly paused: number;
  readonly outages: readonly (Outage & { readonly kind: OutageKind })[];
  readonly quota: EcrSettings['quota'];
  readonly concurrency: number;
  readonly memoryMb: number;
  readonly batch: number;
  readonly functions: number;
  readonly intervalMinutes: number;
  readonly flexibleWindowMinutes: number;
  readonly deadlineSeconds: number;
  readonly unreachableSeconds: number;
  readonly installedWithinHours: number;
  readonly seed: number;
}

const NUMBERS = {
  clusters: [10_000, 1],
  secrets: [100, 1],
  hours: [72, 1],
  replicas: [2, 1],
  dead: [100, 0],
  flapping: [50, 0],
  paused: [50, 0],
  memory: [MEMORY.default, MEMORY.min],
  batch: [undefined, 1],
  functions: [1, 1],
  concurrency: [CLUSTER_CONCURRENCY.default, 1],
  interval: [INTERVAL.default, INTERVAL.min],
  'flexible-window': [undefined, 0],
  deadline: [CLUSTER_DEADLINE.default, CLUSTER_DEADLINE.min],
  unreachable: [10, 0],
  'installed-within': [1, 0],
  seed: [1, 0],
} as const satisfies Record<string, readonly [number | undefined, number]>;

const DEFAULT_OUTAGES = ['ecr@12+3', 'region@32+3', 'clusters@52+6'];
const HOUR_MS = 3_600_000;

/** @param startsAt of the simulation, in milliseconds since the epoch @throws Error that says what is wrong with an option */
export function readOptions(args: readonly string[], startsAt: number): Options {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...(Object.fromEntries(Object.keys(NUMBERS).map((name) => [name, text])) as Record<
        keyof typeof NUMBERS,
        typeof text
      >),
      outage: { type: 'string', multiple: true },
      'ecr-quota': text,
    },
  });
  const number = (name: keyof typeof NUMBERS, byDefault: number = NUMBERS[name][0] ?? 0): number => {
    const value = values[name];
    if (value === undefined) return byDefault;
    const parsed = Number(value);
    if (!Number.isInteger(parsed) || parsed < NUMBERS[name][1])
      throw new Error(`--${name}: "${value}" is not an integer of at least ${NUMBERS[name][1]}`);
    return parsed;
  };
  const intervalMinutes = number('interval');
  if (intervalMinutes > INTERVAL.max)
    throw new Error(`--interval: the CDK app allows at most ${INTERVAL.max} minutes`);
  const options = {
    clusters: number('clusters'),
    secrets: number('secrets'),
    hours: number('hours'),
    replicas: number('replicas'),
    dead: number('dead'),
    flapping: number('flapping'),
    paused: number('paused'),
    concurrency: number('concurrency'),
    memoryMb: number('memory'),
    batch: number('batch', number('clusters')),
    functions: number('functions'),
    intervalMinutes,
    flexibleWindowMinutes: number('flexible-window', Math.floor(intervalMinutes / 6)),
    deadlineSeconds: number('deadline'),
    unreachableSeconds: number('unreachable'),
    installedWithinHours: number('installed-within'),
    seed: number('seed'),
    quota: readQuota(values['ecr-quota']),
    outages: readOutages(values.outage ?? DEFAULT_OUTAGES, startsAt),
  };
  if (options.dead + options.flapping + options.paused > options.clusters)
    throw new Error('--dead, --flapping and --paused are more clusters than --clusters');
  return options;
}

function readQuota(value = 'none'): EcrSettings['quota'] {
  if (value === 'none') return undefined;
  if (value === '20') return QUOTAS.ecrThrottlePerSecond;
  if (value === '500') return QUOTAS.ecrPerSecond;
  throw new Error(`--ecr-quota: "${value}" is not one of none, 20, 500`);
}

function readOutages(values: readonly string[], startsAt: number): Options['outages'] {
  if (values.length === 1 && values[0] === 'none') return [];
  return values.map((value) => {
    const [, name, from, hours] = /^([a-z]+)@(\d+)\+(\d+)$/.exec(value) ?? [];
    const kind = OUTAGE_KINDS.find((one) => one === name);
    if (!kind)
      throw new Error(`--outage: "${value}" is not ${OUTAGE_KINDS.join('|')}@FROM+HOURS, such as ecr@12+3`);
    const at = startsAt + Number(from) * HOUR_MS;
    return { kind, from: at, to: at + Number(hours) * HOUR_MS };
  });
}
