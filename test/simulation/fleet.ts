// The fleets of a simulation: clusters that work, are dead, flap, are paused, or are cut off for some hours.
import { REFRESH_WINDOW_MS } from '../../contract/freshness.ts';
import { jitterOf } from '../../functions/refresher/run/plan.ts';
import { randomFrom } from './random.ts';
import type { Member } from './simulation.ts';

const HOUR_MS = 3_600_000;

/** From when to when something is down, in milliseconds since the epoch. */
export interface Outage {
  readonly from: number;
  readonly to: number;
}

export interface FleetSettings {
  readonly seed: number;
  /** When the dead clusters are registered. They answer for three hours. */
  readonly startsAt: number;
  /** When all the others are. */
  readonly registeredAt: number;
  readonly endsAt: number;
  /** In which time before the registration the webhook wrote the credentials, in milliseconds. */
  readonly installedWithinMs: number;
  /** Clusters of each kind. */
  readonly healthy: number;
  readonly dead: number;
  /** They answer for one to twelve hours, then not for one to three hours, and so on. */
  readonly flapping: number;
  /** They answer for three hours. Then they are down and paused. */
  readonly paused: number;
  /** Times after which a cluster is cut off for twelve hours, at the worst moment: when its Secrets have just become due. */
  readonly cutOffAfter: readonly number[];
}

export const CUT_OFF_MS = 12 * HOUR_MS;

export function fleetOf(settings: FleetSettings): Member[] {
  const { seed, startsAt, registeredAt, endsAt, installedWithinMs } = settings;
  const random = randomFrom(seed);
  const members = (
    kind: string,
    count: number,
    more: (name: string, index: number) => Partial<Member> = () => ({}),
  ): Member[] =>
    Array.from({ length: count }, (_, index) => {
      const name = `${kind}-${index}`;
      const member = {
        name,
        registeredAt,
        isPaused: () => false,
        isReachable: () => true,
        ...more(name, index),
      };
      return { ...member, createdAt: member.registeredAt - Math.floor(random() * installedWithinMs) };
    });
  return [
    ...members('healthy', settings.healthy),
    ...members('dead', settings.dead, () => ({
      registeredAt: startsAt,
      isReachable: (at) => at < startsAt + 3 * HOUR_MS,
    })),
    ...members('flapping', settings.flapping, () => {
      const outages = flappingOutages(random, registeredAt, endsAt);
      return { isReachable: (at) => !outages.some((outage) => isDuring(outage, at)) };
    }),
    ...members('paused', settings.paused, () => ({
      isPaused: (at) => at >= registeredAt + 3 * HOUR_MS,
      isReachable: (at) => at < registeredAt + 3 * HOUR_MS,
    })),
    ...members('cut-off', settings.cutOffAfter.length, (name, index) => ({
      isReachable: worstMoment(name, settings.cutOffAfter[index] ?? endsAt),
    })),
  ];
}

export function isDuring({ from, to }: Outage, at: number): boolean {
  return from <= at && at < to;
}

function worstMoment(name: string, after: number): Member['isReachable'] {
  let outage: Outage | undefined;
  return (at, left) => {
    if (!outage && at >= after && left <= REFRESH_WINDOW_MS + jitterOf(name))
      outage = { from: at, to: at + CUT_OFF_MS };
    return !outage || !isDuring(outage, at);
  };
}

function flappingOutages(random: () => number, from: number, to: number): Outage[] {
  const outages: Outage[] = [];
  for (let at = from; at < to; ) {
    const down = at + HOUR_MS * (1 + 11 * random());
    at = down + HOUR_MS * (1 + 2 * random());
    outages.push({ from: down, to: at });
  }
  return outages;
}
