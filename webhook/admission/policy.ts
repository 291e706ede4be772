// The operator's policy: which registries the Secrets of a namespace get, and as whom their tokens are asked for.
// Read from one YAML document, every problem named at once. Pure.
import { LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import {
  type EcrHost,
  keyOf,
  parseEcrHost,
  partitionOfRegion,
  type Registry,
  type TokenSource,
} from '../aws/registries.ts';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;

export interface Policy {
  /** From when the document is in use. */
  readonly logLevel?: (typeof LOG_LEVELS)[number] | undefined;
  /** All registries, whoever may have them. */
  readonly registries: readonly Registry[];
  /** The registries that a namespace is entitled to. */
  entitlements(namespace: string): readonly Registry[];
}

/** Who the webhook is, as far as it was told. */
export interface Identity {
  readonly region: string;
  /** An entry that names this role needs not assume it. */
  readonly roleArn?: string | undefined;
}

export const RoleArn = z
  .string()
  .regex(
    /^arn:aws[a-z-]*:iam::\d{12}:role\/[\w+=,.@/-]+$/,
    'is no ARN of a role: give one such as arn:aws:iam::123456789012:role/pull',
  );

/** AWS STS API reference, AssumeRole. */
export const ExternalId = z
  .string()
  .regex(/^[\w+=,.@:/-]{2,1224}$/, 'is no external id: 2 to 1224 letters, digits or any of +=,.@:/-_');

const NAMESPACES_HINT = 'say which namespaces get it, such as [team-a, "team-b-*"], or ["*"] for all';

const Entry = z.strictObject({
  host: z.string().transform((host, context) => {
    const parsed = parseEcrHost(host);
    if (parsed) return { name: host, ...parsed };
    const message =
      'is no ECR host: give it without scheme and path, such as 123456789012.dkr.ecr.eu-central-1.amazonaws.com or public.ecr.aws';
    context.addIssue({ code: 'custom', message });
    return z.NEVER;
  }),
  namespaces: z
    .array(
      z
        .string()
        .regex(
          /^[a-z0-9*]([a-z0-9*-]*[a-z0-9*])?$/,
          'is no name of a namespace; * stands for any characters',
        ),
      { error: (issue) => (issue.input === undefined ? NAMESPACES_HINT : undefined) },
    )
    .min(1, NAMESPACES_HINT),
  roleArn: RoleArn.optional(),
  externalId: ExternalId.optional(),
  sharedRole: z.boolean().default(false),
});
type Entry = z.infer<typeof Entry>;

const Document = z.strictObject({
  logLevel: z.enum(LOG_LEVELS).optional(),
  registries: z.array(z.unknown()).default([]),
});

/** Where there is no document: every namespace gets the caller's own registry in the webhook's region. */
export function ownRegistry({ region }: Identity): Policy {
  const registries = [{ source: { service: 'ecr', region } as const }];
  return { registries, entitlements: () => registries };
}

/**
 * Reads the document.
 *
 * @throws Error that names every problem, with the way out
 */
export function readPolicy(text: string, identity: Identity): Policy {
  const yaml = parseDocument(text, { lineCounter: new LineCounter() });
  if (yaml.errors.length > 0)
    throw wrong(yaml.errors.map(({ message }) => (message.split('\n')[0] ?? '').replace(/:$/, '')));
  const content: unknown = yaml.toJS() ?? {};
  const document = Document.safeParse(content);
  const problems = document.success ? [] : problemsOf(document.error, '');
  // What is wrong beside them does not hide what is wrong in them.
  const { registries } = content as { registries?: unknown };
  const entries = new Map<string, Entry>();
  (Array.isArray(registries) ? registries : []).forEach((raw, index) => {
    const where = `registries[${index}]`;
    const entry = Entry.safeParse(raw);
    if (!entry.success) problems.push(...problemsOf(entry.error, where));
    else entries.set(`${where} (${entry.data.host.name})`, entry.data);
  });
  for (const [where, entry] of entries) problems.push(...strays(where, entry, identity));
  problems.push(...unreachable(entries), ...shared(entries, identity));
  if (!document.success || problems.length > 0) throw wrong(problems);

  const { logLevel } = document.data;
  if (entries.size === 0) return { ...ownRegistry(identity), logLevel };
  return { logLevel, ...compile([...entries.values()], identity) };
}

function wrong(problems: readonly string[]): Error {
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

/** What of an entry cannot be, by itself. */
function strays(where: string, { host, roleArn, externalId }: Entry, { region }: Identity): string[] {
  const problems: string[] = [];
  const own = partitionOfRegion(region);
  if (host.partition !== own) {
    problems.push(
      `${where}: is in the partition ${host.partition}, and this webhook's identity in ${own} (its region is ${region}): no identity of one partition is known in another`,
    );
  }
  if (roleArn !== undefined && roleArn.split(':')[1] !== host.partition)
    problems.push(`${where}.roleArn: is in another partition than the registry (${host.partition})`);
  if (externalId !== undefined && roleArn === undefined)
    problems.push(`${where}.externalId: goes with a roleArn, and there is none`);
  return problems;
}

/** Of several entries for a host the first that fits a namespace counts: what can never be the first is a mistake. */
function unreachable(entries: ReadonlyMap<string, Entry>): string[] {
  const all = [...entries];
  return all.flatMap(([where, entry], index) => {
    const earlier = all.slice(0, index).find(
      ([, other]) =>
        other.host.name === entry.host.name &&
        // A pattern is among the names that another one fits, if it fits the pattern's own letters.
        entry.namespaces.every((glob) => other.namespaces.some((wider) => fits(wider, glob))),
    );
    return earlier ? [`${where}: is never used, as ${earlier[0]} comes first for all of its namespaces`] : [];
  });
}

/**
 * The isolation boundary is the role: ECR's token opens every registry that its principal may read, so two namespaces
 * that get tokens of one principal get each other's images. That has to be meant.
 * Images of ECR Public are everybody's.
 */
function shared(entries: ReadonlyMap<string, Entry>, identity: Identity): string[] {
  const problems: string[] = [];
  const groups = Map.groupBy(entries, ([, { host, roleArn }]) =>
    host.service === 'ecr' ? keyOf({ ...host, role: roleOf(roleArn, undefined, identity) }) : '',
  );
  groups.delete('');
  for (const group of groups.values()) {
    const [[, first]] = group as [[string, Entry]];
    const role = first.roleArn ?? 'the webhook’s own identity';
    if (new Set(group.map(([, { externalId }]) => externalId)).size > 1) {
      problems.push(
        `${listed(group.map(([where]) => where))}: name ${role} with different external ids; one is needed`,
      );
    }
    const sets = new Set(group.map(([, { namespaces }]) => [...new Set(namespaces)].sort().join(' ')));
    const silent = group.filter(([, { sharedRole }]) => !sharedRole);
    if (sets.size === 1 || silent.length === 0) continue;
    const whose = group.map(([where, { namespaces }]) => `${where} for ${namespaces.join(', ')}`);
    problems.push(
      `${listed(whose)}: have different namespaces and one principal, ${role} in ${first.host.region}. ` +
        'A token opens every registry that its principal may read, so each of these namespaces would be given the images of the others. ' +
        'Give each its own roleArn, or all the same namespaces; or, where sharing is meant, say sharedRole: true in all of them',
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

function compile(entries: readonly Entry[], identity: Identity): Pick<Policy, 'registries' | 'entitlements'> {
  const endpoints = new Map<string, Pick<EcrHost, 'fips' | 'dualStack'>>();
  const sourceOf = ({ host, roleArn, externalId }: Entry): TokenSource => ({
    service: host.service,
    region: host.region,
    role: roleOf(roleArn, externalId, identity),
  });
  // One call serves all hosts of a source: where one of them asks for FIPS or dual stack, that is how it is made.
  for (const entry of entries) {
    const key = keyOf(sourceOf(entry));
    const { fips = false, dualStack = false } = endpoints.get(key) ?? {};
    endpoints.set(key, { fips: fips || entry.host.fips, dualStack: dualStack || entry.host.dualStack });
  }
  const compiled = entries.map((entry) => {
    const source = sourceOf(entry);
    const registry: Registry = {
      host: entry.host.name,
      source: { ...source, ...endpoints.get(keyOf(source)) },
    };
    return { registry, namespaces: entry.namespaces };
  });
  const known = new Map<string, readonly Registry[]>();
  return {
    registries: compiled.map(({ registry }) => registry),
    entitlements(namespace) {
      const cached = known.get(namespace);
      if (cached) return cached;
      const byHost = new Map<string | undefined, Registry>();
      for (const { registry, namespaces } of compiled) {
        if (!byHost.has(registry.host) && namespaces.some((glob) => fits(glob, namespace)))
          byHost.set(registry.host, registry);
      }
      const registries = [...byHost.values()];
      known.set(namespace, registries);
      return registries;
    },
  };
}

/** Whether a name fits a pattern in which * stands for any characters, none too. In time linear to both. */
function fits(glob: string, name: string): boolean {
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
