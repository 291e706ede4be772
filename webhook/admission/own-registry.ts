// The webhook's own registry has no host in the policy if only a token names its account (docs/registries.md). This file
// asks for that token before the Secret is judged, so that a replica without a token answers like one that has it.
import type { EcrTokens, TokenOutcome } from '../aws/ecr-tokens.ts';
import { isHostOf, mayBeHostOf, type Registry } from '../aws/registries.ts';
import { TokenError } from '../aws/token-error.ts';
import { hasPrincipalOf, type OwnedEntries } from './owned-entries.ts';

/** The registries of a namespace as far as their hosts are known, each host once: the first entry of a host is used. */
export function knownRegistries(entitled: readonly Registry[], tokens: EcrTokens): readonly Registry[] {
  if (!entitled.some(isUnnamed)) return entitled;
  const byHost = new Map<string | undefined, Registry>();
  for (const registry of entitled.map((one) => tokens.withHost(one)))
    if (!byHost.has(registry.host)) byHost.set(registry.host, registry);
  return [...byHost.values()];
}

/** Whether the host of a registry is not known. */
export function isUnnamed({ host }: Registry): boolean {
  return host === undefined;
}

/** The registries to decide with. `failures` has the outcomes of those that must not be asked for again. */
export interface NamedRegistries {
  readonly registries: readonly Registry[];
  readonly failures: ReadonlyMap<Registry, TokenOutcome>;
}

/**
 * Asks ECR for the host of the webhook's own registry.
 *
 * @param stored the owned entries of the stored Secret
 * @param run as `force` in `EcrTokens.obtain`
 * @param waitedMs as in `EcrTokens.obtain`
 */
export async function nameOwnRegistry(
  entitled: readonly Registry[],
  stored: OwnedEntries,
  tokens: EcrTokens,
  run: string | undefined,
  waitedMs: number,
): Promise<NamedRegistries> {
  const unnamed = entitled.find(isUnnamed);
  // The other registries need some of the time as well.
  const waitedAs = entitled.length > 1 ? (tokens.withinMs + waitedMs) / 2 : waitedMs;
  const outcome = unnamed && (await tokens.obtain(unnamed, run, waitedAs));
  const known = knownRegistries(entitled, tokens);
  const own = known.find(isUnnamed);
  if (!own) return { registries: known, failures: new Map() };
  const error =
    outcome && 'error' in outcome
      ? outcome.error
      : new TokenError('ecr-error', 'the token names no registry');
  const others = known.filter((registry) => registry !== own);
  const inPlace = standIns(own, stored, others);
  return {
    registries: [...others, ...inPlace],
    failures: new Map(inPlace.map((registry) => [registry, { registry, error }])),
  };
}

/**
 * While the host is not known, each stored entry that may be the own registry's stays as if it were: dropping it could
 * end pulls, and no new token is written for it. Without such an entry the registry itself stays.
 */
export function standIns(
  own: Registry,
  stored: OwnedEntries,
  others: readonly Registry[],
): readonly Registry[] {
  const hosts = [...stored]
    .filter(([host, entry]) => mayBeHostOf(own, host) && hasPrincipalOf(own, entry))
    .map(([host]) => host)
    .filter((host) => !others.some((registry) => isHostOf(registry, host)));
  return hosts.length === 0 ? [own] : hosts.map((host) => ({ ...own, host }));
}
