// The operator's policy: which registries a namespace is entitled to, and which role their tokens are obtained with.
// It is one YAML document, and all its problems are reported together. A namespace gets only what it names. Pure.
// webhook/chart/templates/_policy.tpl has the same rules: change both.
import { LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import {
  type EcrHost,
  keyOf,
  parseEcrHost,
  partitionOfRegion,
  privateHost,
  type Registry,
  type TokenSource,
} from '../aws/registries.ts';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;

export interface Policy {
  /** Overrides the log level of the environment. */
  readonly logLevel?: (typeof LOG_LEVELS)[number] | undefined;
  /** True for `NO_POLICY` only. */
  readonly isInvalid?: boolean;
  /** All registries of the policy. */
  readonly registries: readonly Registry[];
  /**
   * The registries that a namespace is entitled to, each host once. The webhook's own registry comes last; it has no host
   * where only a token names its account.
   */
  entitlements(namespace: string): readonly Registry[];
}

/** The policy while there is no valid document: the webhook denies every managed Secret. */
export const NO_POLICY: Policy = { isInvalid: true, registries: [], entitlements: () => [] };

/** The webhook's AWS identity. */
export interface Identity {
  readonly region: string;
  /** The webhook's own role, if known. An entry that names it needs no AssumeRole. */
  readonly roleArn?: string | undefined;
  /** The AWS account of the identity, if the settings tell it. */
  readonly account?: string | undefined;
}

export const RoleArn = z
  .string()
  .regex(
    /^arn:aws[a-z-]*:iam::\d{12}:role\/[\w+=,.@/-]+$/,
    'is not the ARN of a role: use one such as arn:aws:iam::123456789012:role/pull',
  );

/** AWS STS API reference, AssumeRole. */
export const ExternalId = z
  .string()
  .regex(
    /^[\w+=,.@:/-]{2,1224}$/,
    'is not an external id: use 2 to 1224 letters, digits or any of +=,.@:/-_',
  );

const NAMESPACES_HINT = 'list the namespaces that get it, such as [team-a, "team-b-*"], or ["*"] for all';

const Namespace = z
  .string()
  .regex(
    /^[a-z0-9*]([a-z0-9*-]*[a-z0-9*])?$/,
    'is not the name of a namespace (* stands for any characters)',
  );

const Entry = z.strictObject({
  host: z.string().transform((host, context) => {
    const parsed = parseEcrHost(host);
    if (parsed) return { name: host, ...parsed };
    const message =
      'is not an ECR host: use one without scheme and path, such as 123456789012.dkr.ecr.eu-central-1.amazonaws.com or public.ecr.aws';
    context.addIssue({ code: 'custom', message });
    return z.NEVER;
  }),
  namespaces: z
    .array(Namespace, { error: (issue) => (issue.input === undefined ? NAMESPACES_HINT : undefined) })
    .min(1, NAMESPACES_HINT),
  roleArn: RoleArn.optional(),
  externalId: ExternalId.optional(),
  sharedRole: z.boolean().default(false),
});

const OwnRegistry = z.strictObject({
  namespaces: z.array(Namespace).nullish(),
  account: z
    .string()
    .regex(/^\d{12}$/, 'is not an AWS account: use its 12 digits, in quotes')
    .optional(),
  sharedRole: z.boolean().default(false),
});

const Document = z.strictObject({
  logLevel: z.enum(LOG_LEVELS).optional(),
  // A list whose entries are all removed or commented out is null.
  ownRegistry: OwnRegistry.nullish(),
  registries: z.array(z.unknown()).nullish(),
});

/** An entry of the policy, or the webhook's own registry. */
interface Rule {
  /** Without a name it is the webhook's own registry, whose account is not known. */
  readonly host: EcrHost & { readonly name?: string | undefined };
  readonly namespaces: readonly string[];
  readonly roleArn?: string | undefined;
  readonly externalId?: string | undefined;
  readonly sharedRole: boolean;
}

/**
 * Reads the document.
 *
 * @throws Error that names every problem and what to do about it
 */
export function readPolicy(text: string, identity: Identity): Policy {
  const yaml = parseDocument(text, { lineCounter: new LineCounter() });
  if (yaml.errors.length > 0)
    throw invalid(yaml.errors.map(({ message }) => (message.split('\n')[0] ?? '').replace(/:$/, '')));
  const content: unknown = yaml.toJS() ?? {};
  const document = Document.safeParse(content);
  const problems = document.success ? [] : problemsOf(document.error, '');
  // Problems elsewhere in the document do not hide those of the entries.
  const { registries } = content as { registries?: unknown };
  const rules = new Map<string, Rule>();
  (Array.isArray(registries) ? registries : []).forEach((raw, index) => {
    const where = `registries[${index}]`;
    const entry = Entry.safeParse(raw);
    if (!entry.success) problems.push(...problemsOf(entry.error, where));
    else rules.set(`${where} (${entry.data.host.name})`, entry.data);
  });
  for (const [where, rule] of rules) problems.push(...ruleProblems(where, rule, identity));
  const own = ownRule(document.data?.ownRegistry, identity);
  // Last, so that an entry can give some of its namespaces the same registry with a narrower role.
  if (own) rules.set(own.host.name === undefined ? 'ownRegistry' : `ownRegistry (${own.host.name})`, own);
  problems.push(...shadowedRules(rules), ...sharedPrincipals(rules, identity));
  if (!document.success || problems.length > 0) throw invalid(problems);
  return { logLevel: document.data.logLevel, ...compile([...rules.values()], identity) };
}

/** The rule of the webhook's own registry; undefined if no namespace gets it. */
function ownRule(
  own: z.infer<typeof OwnRegistry> | null | undefined,
  { region, account: known }: Identity,
): Rule | undefined {
  if (!own?.namespaces?.length) return undefined;
  const account = own.account ?? known;
  const host = {
    service: 'ecr',
    region,
    partition: partitionOfRegion(region),
    fips: false,
    dualStack: false,
    name: account === undefined ? undefined : privateHost(account, region),
  } as const;
  return { host, namespaces: own.namespaces, sharedRole: own.sharedRole };
}

function invalid(problems: readonly string[]): Error {
  return new Error(problems.join('; '));
}

function problemsOf(error: z.ZodError, where: string): string[] {
  return error.issues.map(({ path, message }) => {
    const at = path.reduce<string>(
      (so, key) => (typeof key === 'number' ? `${so}[${key}]` : so ? `${so}.${String(key)}` : String(key)),
      where,
    );
    return at ? `${at}: ${message}` : message;
  });
}

/** The problems of one entry, without regard to the others. */
function ruleProblems(where: string, { host, roleArn, externalId }: Rule, { region }: Identity): string[] {
  const problems: string[] = [];
  const own = partitionOfRegion(region);
  if (host.partition !== own) {
    problems.push(
      `${where}: is in the partition ${host.partition}, and the webhook's identity is in ${own} (its region is ${region}); an identity of one partition has no access in another`,
    );
  }
  if (roleArn !== undefined && roleArn.split(':')[1] !== host.partition)
    problems.push(`${where}.roleArn: is in another partition than the registry (${host.partition})`);
  if (externalId !== undefined && roleArn === undefined)
    problems.push(`${where}.externalId: needs a roleArn`);
  return problems;
}

/** For a namespace, the first matching entry of a host is used: an entry that is never the first is a mistake. */
function shadowedRules(rules: ReadonlyMap<string, Rule>): string[] {
  const all = [...rules];
  return all.flatMap(([where, rule], index) => {
    const earlier = all.slice(0, index).find(
      ([, other]) =>
        other.host.name === rule.host.name &&
        // If a pattern matches another pattern's text, it matches every name that the other one matches.
        rule.namespaces.every((glob) => other.namespaces.some((wider) => matchesGlob(wider, glob))),
    );
    return earlier
      ? [`${where}: is never used, because ${earlier[0]} comes first for all its namespaces`]
      : [];
  });
}

/**
 * The role is the isolation boundary: a token opens every registry that its principal may read. Two namespaces with
 * tokens of one principal can therefore read each other's images, which the operator must confirm with `sharedRole`.
 * Images of ECR Public are public anyway.
 */
function sharedPrincipals(rules: ReadonlyMap<string, Rule>, identity: Identity): string[] {
  const problems: string[] = [];
  const groups = Map.groupBy(rules, ([, { host, roleArn }]) =>
    host.service === 'ecr' ? keyOf({ ...host, role: roleOf(roleArn, undefined, identity) }) : '',
  );
  groups.delete('');
  for (const group of groups.values()) {
    const [[, first]] = group as [[string, Rule]];
    const role = first.roleArn ?? "the webhook's own identity";
    if (new Set(group.map(([, { externalId }]) => externalId)).size > 1) {
      problems.push(
        `${listed(group.map(([where]) => where))}: use ${role} with different external ids; give all of them the same one`,
      );
    }
    const sets = new Set(group.map(([, { namespaces }]) => [...new Set(namespaces)].sort().join(' ')));
    const unconfirmed = group.filter(([, { sharedRole }]) => !sharedRole);
    if (sets.size === 1 || unconfirmed.length === 0) continue;
    const usages = group.map(([where, { namespaces }]) => `${where} for ${namespaces.join(', ')}`);
    problems.push(
      `${listed(usages)}: have different namespaces and the same principal, ${role} in ${first.host.region}. ` +
        'A token opens every registry that its principal may read, so that each of these namespaces could read the images of the others. ' +
        'Give each entry of registries its own roleArn or all the same namespaces; or, to share on purpose, set sharedRole: true in all of them',
    );
  }
  return problems;
}

function listed(items: readonly string[]): string {
  return items.length < 2 ? items.join() : `${items.slice(0, -1).join(', ')} and ${items.at(-1)}`;
}

function roleOf(
  arn: string | undefined,
  externalId: string | undefined,
  { roleArn: own }: Identity,
): TokenSource['role'] {
  return arn === undefined || arn === own ? undefined : { arn, externalId };
}

/** The namespaces whose entitlements are cached. Callers choose the names, so there is a limit. */
const MAX_CACHED = 10_000;

function compile(rules: readonly Rule[], identity: Identity): Pick<Policy, 'registries' | 'entitlements'> {
  const endpoints = new Map<string, Pick<EcrHost, 'fips' | 'dualStack'>>();
  const sourceOf = ({ host, roleArn, externalId }: Rule): TokenSource => ({
    service: host.service,
    region: host.region,
    role: roleOf(roleArn, externalId, identity),
  });
  // One token serves all hosts of a source. If one host is FIPS or dual-stack, the call uses that endpoint.
  for (const rule of rules) {
    const key = keyOf(sourceOf(rule));
    const { fips = false, dualStack = false } = endpoints.get(key) ?? {};
    endpoints.set(key, { fips: fips || rule.host.fips, dualStack: dualStack || rule.host.dualStack });
  }
  const compiled = rules.map((rule) => {
    const source = sourceOf(rule);
    const registry: Registry = {
      host: rule.host.name,
      source: { ...source, ...endpoints.get(keyOf(source)) },
    };
    return { registry, namespaces: rule.namespaces };
  });
  const cache = new Map<string, readonly Registry[]>();
  return {
    registries: compiled.map(({ registry }) => registry),
    entitlements(namespace) {
      const cached = cache.get(namespace);
      if (cached) return cached;
      const byHost = new Map<string | undefined, Registry>();
      for (const { registry, namespaces } of compiled) {
        if (!byHost.has(registry.host) && namespaces.some((glob) => matchesGlob(glob, namespace)))
          byHost.set(registry.host, registry);
      }
      const registries = [...byHost.values()];
      cache.set(namespace, registries);
      const [oldest] = cache.keys();
      if (cache.size > MAX_CACHED && oldest !== undefined) cache.delete(oldest);
      return registries;
    },
  };
}

/** Whether a name matches a pattern in which * stands for any number of characters. Takes linear time. */
function matchesGlob(glob: string, name: string): boolean {
  const [first = '', ...rest] = glob.split('*');
  const last = rest.pop();
  if (last === undefined) return glob === name;
  if (!name.startsWith(first) || !name.endsWith(last)) return false;
  let from = first.length;
  for (const part of rest) {
    const at = name.indexOf(part, from);
    if (at < 0) return false;
    from = at + part.length;
  }
  return from <= name.length - last.length;
}
