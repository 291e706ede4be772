// `npm run simulate`: simulates a fleet for some days, and prints its figures.
import { DEFAULTS } from './defaults.ts';
import { fleetOf, isDuring } from './fleet.ts';
import { type Options, type OutageKind, readOptions, USAGE } from './options.ts';
import { monthlyCost, PRICES } from './prices.ts';
import { QUOTAS } from './quotas.ts';
import { formatFigure, renderChart, renderTable } from './render.ts';
import { type Member, type SimulationResult, simulate } from './simulation.ts';

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;

const options = readCommandLine();
const { startsAt } = DEFAULTS;
const endsAt = startsAt + options.hours * HOUR_MS;
const isDown = (at: number, ...kinds: OutageKind[]) =>
  options.outages.some((outage) => kinds.includes(outage.kind) && isDuring(outage, at));
const runs = Math.ceil((options.hours * 60) / options.intervalMinutes);
let done = 0;
console.log(
  `${formatFigure(options.clusters)} clusters, ${options.secrets} Secrets each, ${options.hours} hours`,
);
const result = await simulate(
  fleet(),
  {
    ...DEFAULTS,
    ...options,
    endsAt,
    intervalMs: options.intervalMinutes * MINUTE_MS,
    flexibleWindowMs: options.flexibleWindowMinutes * MINUTE_MS,
    clusterDeadlineMs: options.deadlineSeconds * 1000,
    latencies: { ...DEFAULTS.latencies, unreachable: options.unreachableSeconds * 1000 },
    ecr: { quota: options.quota, isDown: (at) => isDown(at, 'ecr', 'region') },
    isRefresherDown: (at) => isDown(at, 'region'),
  },
  ({ startedAt, servedAt, served }) => {
    done += 1;
    if (process.stdout.isTTY || done % 12 === 0)
      process.stdout.write(
        `${process.stdout.isTTY ? '\r\u001b[K' : ''}run ${done} of at most ${runs}, hour ${Math.floor((startedAt - startsAt) / HOUR_MS)}: ${served} served in ${Math.round((servedAt - startedAt) / 1000)} s${process.stdout.isTTY ? '' : '\n'}`,
      );
  },
);
print(result);

function readCommandLine(): Options {
  const args = process.argv.slice(2);
  if (args.includes('--help')) {
    console.log(USAGE);
    process.exit(0);
  }
  try {
    return readOptions(args, DEFAULTS.startsAt);
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${USAGE}`);
    process.exit(2);
  }
}

/** The fleet, a tenth of which does not answer during an outage of the kind "clusters". */
function fleet(): Member[] {
  const { clusters, dead, flapping, paused, installedWithinHours, seed } = options;
  const members = fleetOf({
    seed,
    startsAt,
    registeredAt: startsAt,
    endsAt,
    healthy: clusters - dead - flapping - paused,
    dead,
    flapping,
    paused,
    cutOffAfter: [],
    installedWithinMs: installedWithinHours * HOUR_MS,
  });
  return members.map((member, index) =>
    index % 10 === 0
      ? { ...member, isReachable: (at, left) => member.isReachable(at, left) && !isDown(at, 'clusters') }
      : member,
  );
}

function print({
  runs,
  announcements,
  messages,
  ecrCalls,
  ecrThrottled,
  leastLeft,
  ...rest
}: SimulationResult) {
  const most = (values: Iterable<number>) => [...values].reduce((a, b) => Math.max(a, b), 0);
  const least = (kind: string) =>
    [...leastLeft].reduce(
      (a, [name, left]) => (name.startsWith(`${kind}-`) ? Math.min(a, left) : a),
      Infinity,
    );
  const hours = (ms: number) => (Number.isFinite(ms) ? `${formatFigure(ms / HOUR_MS)} h` : '–');
  const overTenSeconds = mostInTenSeconds(ecrCalls);
  const transitions = Map.groupBy(announcements, ({ transition }) => transition);
  const served = runs.map(({ startedAt, servedAt }) => (servedAt - startedAt) / 1000);
  const expired = [...leastLeft].filter(([name, left]) => left <= 0 && !/^(dead|paused)-/.test(name)).length;
  console.log(
    renderTable(
      ['figure', 'value'],
      [
        [
          'runs; that failed as a whole',
          `${runs.length}; ${runs.filter(({ hasFailed }) => hasFailed).length}`,
        ],
        ['longest run until all clusters were served', `${formatFigure(most(served))} s`],
        [
          'longest time for the announcements',
          `${formatFigure(most(runs.map(({ servedAt, endedAt }) => (endedAt - servedAt) / 1000)))} s`,
        ],
        [
          'clusters that a run did not start, at most',
          formatFigure(most(runs.map(({ notStarted }) => notStarted))),
        ],
        ['refreshes of Secrets', formatFigure(runs.reduce((sum, { refreshed }) => sum + refreshed, 0))],
        ['calls to ECR', formatFigure([...ecrCalls.values()].reduce((a, b) => a + b, 0))],
        [
          `calls to ECR in the busiest second (quotas: ${QUOTAS.ecrThrottlePerSecond}, ${QUOTAS.ecrPerSecond})`,
          most(ecrCalls.values()),
        ],
        ['calls to ECR a second, in the busiest ten seconds', formatFigure(overTenSeconds)],
        ['calls that ECR throttled', formatFigure(ecrThrottled)],
        ['least remaining life of a Secret: clusters that work', hours(least('healthy'))],
        ['… of flapping clusters', hours(least('flapping'))],
        ['clusters with expired credentials, without dead and paused ones', expired],
        ...['failing', 'expiring', 'expired', 'recovered', 'reminder'].map((kind) => [
          `announced: ${kind}`,
          formatFigure(transitions.get(kind)?.length ?? 0),
        ]),
        ['messages to subscribers a day', formatFigure(messages.length / (options.hours / 24))],
      ],
    ),
  );
  const cost = monthlyCost(
    { runs, announcements, messages, ecrCalls, ecrThrottled, leastLeft, ...rest },
    options,
  );
  console.log(
    renderTable(
      [`cost a month (${PRICES.asOf})`, 'USD'],
      [
        ...cost.map(({ item, amount }) => [item, amount.toFixed(2)]),
        ['sum', cost.reduce((sum, { amount }) => sum + amount, 0).toFixed(2)],
      ],
    ),
  );
  const hoursOf = Array.from({ length: options.hours }, (_, hour) => startsAt + hour * HOUR_MS);
  const inHour = <T>(items: readonly T[], at: (item: T) => number, value: (item: T) => number) =>
    hoursOf.map((from) =>
      most(items.filter((item) => at(item) >= from && at(item) < from + HOUR_MS).map(value)),
    );
  const calls = new Map(hoursOf.map((from) => [from, 0]));
  for (const [second, count] of ecrCalls) {
    const hour = Math.floor((second * 1000 - startsAt) / HOUR_MS) * HOUR_MS + startsAt;
    calls.set(hour, Math.max(calls.get(hour) ?? 0, count));
  }
  const startedAt = ({ startedAt }: (typeof runs)[number]) => startedAt;
  console.log(
    [
      renderChart(
        'time until all clusters were served',
        inHour(runs, startedAt, ({ startedAt, servedAt }) => (servedAt - startedAt) / 1000),
        's, by hour',
      ),
      renderChart(
        'calls to ECR in the busiest second',
        hoursOf.map((from) => calls.get(from) ?? 0),
        'by hour',
      ),
      renderChart(
        'clusters that failed',
        inHour(runs, startedAt, ({ failed }) => failed),
        'by hour',
      ),
      renderChart(
        'soonest expiry, as the metric SoonestExpiry',
        inHour(runs, startedAt, ({ soonestExpiry }) => Math.max(0, (soonestExpiry ?? 0) / 3600)),
        'h, by hour',
      ),
    ].join('\n\n'),
  );
}

/** The most calls a second, as the mean of ten seconds. */
function mostInTenSeconds(calls: ReadonlyMap<number, number>): number {
  let most = 0;
  for (const second of calls.keys()) {
    let sum = 0;
    for (let index = 0; index < 10; index++) sum += calls.get(second + index) ?? 0;
    most = Math.max(most, sum / 10);
  }
  return most;
}
