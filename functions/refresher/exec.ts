// What an exec entry of a kubeconfig would run, where it is a command that is understood. Nothing is ever run: the
// refresher makes the same token itself. Pure.
import { parseArgs } from 'node:util';
import { z } from 'zod';

/** A token for an EKS cluster, signed as the refresher, or as a role that it may assume. */
export interface EksIdentity {
  readonly eks: {
    readonly cluster: string;
    /** Absent: told by the server's name. */
    readonly region?: string;
    readonly roleArn?: string;
    readonly externalId?: string;
  };
}

const Exec = z.object({
  command: z.string(),
  args: z.array(z.string()).nullish(),
  env: z.array(z.object({ name: z.string(), value: z.string() })).nullish(),
});

/** Where the operator's own machine takes its AWS identity from; the refresher has its own. */
const OF_THE_OPERATOR: ReadonlySet<string> = new Set(['AWS_PROFILE', 'AWS_STS_REGIONAL_ENDPOINTS']);
const REGION: readonly string[] = ['AWS_REGION', 'AWS_DEFAULT_REGION'];

interface Understood {
  readonly options: NonNullable<Parameters<typeof parseArgs>[0]>['options'];
  readonly positionals: readonly string[];
  /** Options that mean the cluster, the region, the role, its external id; the rest says nothing of who asks. */
  readonly means: Readonly<Record<'cluster' | 'region' | 'roleArn' | 'externalId', string>>;
}

const text = (short?: string) => ({ type: 'string', ...(short !== undefined && { short }) }) as const;
const flag = { type: 'boolean' } as const;

/** By the command's last path segment. */
const COMMANDS: Readonly<Record<string, Understood>> = {
  aws: {
    options: {
      'cluster-name': text(),
      region: text(),
      'role-arn': text(),
      output: text(),
      profile: text(),
      'no-cli-pager': flag,
    },
    positionals: ['eks', 'get-token'],
    means: { cluster: 'cluster-name', region: 'region', roleArn: 'role-arn', externalId: '' },
  },
  'aws-iam-authenticator': {
    options: {
      'cluster-id': text('i'),
      region: text(),
      role: text('r'),
      'external-id': text('e'),
      'session-name': text('s'),
      'forward-session-name': flag,
      cache: flag,
    },
    positionals: ['token'],
    means: { cluster: 'cluster-id', region: 'region', roleArn: 'role', externalId: 'external-id' },
  },
};

const ROLE_ARN = /^arn:aws[a-z-]*:iam::\d{12}:role\/[\w+=,.@/-]+$/;

/**
 * Reads an exec entry.
 *
 * @throws Error that names what is not understood, never a value
 */
export function readExec(entry: unknown): EksIdentity {
  const exec = Exec.safeParse(entry);
  if (!exec.success) throw new Error('is no exec entry: it needs a command');
  const { command, args, env } = exec.data;
  const name = command.slice(command.search(/[^/\\]*$/)).replace(/\.exe$/, '');
  const understood = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!understood) {
    throw new Error(
      'would run a command: register a token or a client certificate. Only "aws eks get-token" and "aws-iam-authenticator token" are understood, and signed without running them',
    );
  }
  const values = optionsOf(name, understood, args ?? []);
  const { means } = understood;
  let region = values[means.region];
  for (const { name: variable, value } of env ?? []) {
    if (REGION.includes(variable)) region ??= value;
    else if (!OF_THE_OPERATOR.has(variable))
      throw new Error(`sets the environment variable ${variable}, which is not understood: leave it out`);
  }
  const cluster = values[means.cluster];
  if (!cluster) throw new Error(`does not name the cluster: --${means.cluster}`);
  const roleArn = values[means.roleArn];
  if (roleArn !== undefined && !ROLE_ARN.test(roleArn))
    throw new Error(
      `--${means.roleArn} is no ARN of a role, such as arn:aws:iam::123456789012:role/refresher`,
    );
  if (region !== undefined && !/^[a-z]{2,4}(-[a-z]+)+-\d+$/.test(region))
    throw new Error(`--${means.region} is no AWS region`);
  if (!/^[0-9A-Za-z][A-Za-z0-9_-]{0,99}$/.test(cluster))
    throw new Error(`--${means.cluster} is no name of an EKS cluster`);
  const externalId = values[means.externalId];
  return {
    eks: {
      cluster,
      ...(region !== undefined && { region }),
      ...(roleArn !== undefined && { roleArn }),
      ...(externalId !== undefined && { externalId }),
    },
  };
}

function optionsOf(
  name: string,
  { options, positionals }: Understood,
  args: readonly string[],
): Record<string, string | undefined> {
  const { tokens } = parseArgs({
    args: [...args],
    options,
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  const given: string[] = [];
  const values: Record<string, string> = {};
  for (const token of tokens) {
    if (token.kind === 'positional') given.push(token.value);
    if (token.kind !== 'option') continue;
    const option = Object.hasOwn(options ?? {}, token.name) ? options?.[token.name] : undefined;
    if (!option) throw new Error(`has the option ${token.rawName}, which is not understood: leave it out`);
    if (token.name in values) throw new Error(`has the option ${token.rawName} twice`);
    if (option.type === 'string' && !token.value)
      throw new Error(`has the option ${token.rawName} without a value`);
    values[token.name] = token.value ?? '';
  }
  if (given.join(' ') !== positionals.join(' '))
    throw new Error(`is not "${name} ${positionals.join(' ')}": nothing else of it is understood`);
  return values;
}
