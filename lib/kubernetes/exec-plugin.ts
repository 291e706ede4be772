// Recognizes the exec entries of a kubeconfig whose tokens the refresher can make itself. It never runs a command. Pure.

import { isDeepStrictEqual, parseArgs } from 'node:util';
import { z } from 'zod';
import { sanitizeName } from '../text.ts';

/** A token for an EKS cluster, signed as the refresher, or as a role that it may assume. */
export interface EksIdentity {
  readonly eks: {
    readonly cluster: string;
    /** Absent: the region in the server's host name. */
    readonly region?: string;
    readonly roleArn?: string;
    readonly externalId?: string;
  };
}

/** A token of the AWS account's issuer, for one cluster. */
export interface KeylessIdentity {
  readonly keyless: {
    /** The registered name. */
    readonly cluster: string;
    /** The stack name. Absent: the stack of the refresher that reads this. */
    readonly stage?: string;
  };
}

const Exec = z.object({
  command: z.string(),
  args: z.array(z.string()).nullish(),
  env: z.array(z.object({ name: z.string(), value: z.string() })).nullish(),
});

/** Variables that select an AWS identity on the operator's machine; the refresher has its own. */
const IGNORED_VARIABLES: ReadonlySet<string> = new Set(['AWS_PROFILE', 'AWS_STS_REGIONAL_ENDPOINTS']);
const REGION_VARIABLES: readonly string[] = ['AWS_REGION', 'AWS_DEFAULT_REGION'];

interface SupportedCommand {
  readonly options: NonNullable<Parameters<typeof parseArgs>[0]>['options'];
  readonly positionals: readonly string[];
  /** The identity that the options select. Options that it does not read do not change the identity. */
  readonly identity: (
    values: Readonly<Partial<Record<string, string>>>,
    region: string | undefined,
  ) => EksIdentity | KeylessIdentity;
}

const text = (short?: string) => ({ type: 'string', ...(short !== undefined && { short }) }) as const;
const flag = { type: 'boolean' } as const;

/** By the command's last path segment. */
const COMMANDS: Readonly<Record<string, SupportedCommand>> = {
  aws: {
    options: {
      'cluster-name': text(),
      region: text(),
      'role-arn': text(),
      // update-kubeconfig writes this one: the AWS CLI accepts an option's unambiguous prefix.
      role: text(),
      output: text(),
      profile: text(),
      'no-cli-pager': flag,
    },
    positionals: ['eks', 'get-token'],
    identity: ({ role, 'role-arn': roleArn = role, ...values }, region) => {
      if (role !== undefined && role !== roleArn) throw new Error('has the option --role-arn twice');
      const named = { ...values, ...(roleArn !== undefined && { 'role-arn': roleArn }) };
      return eksIdentity({ cluster: 'cluster-name', role: 'role-arn' }, named, region);
    },
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
    identity: (values, region) => eksIdentity({ cluster: 'cluster-id', role: 'role' }, values, region),
  },
  'ecr-anywhere': {
    // `--stage` is the former name of `--stack-name`, which earlier registrations have.
    options: { cluster: text(), 'stack-name': text(), stage: text(), region: text() },
    positionals: ['get-token'],
    identity: ({ cluster, stage: former, 'stack-name': stage = former }) => {
      if (former !== undefined && former !== stage)
        throw new Error('has --stage and --stack-name, which differ');
      if (!cluster) throw new Error('does not name the cluster: add --cluster');
      return { keyless: { cluster, ...(stage !== undefined && { stage }) } };
    },
  },
};

/** A path of up to 512 characters, and a name of up to 64 (IAM quotas). */
const ROLE_ARN = /^arn:aws[a-z-]*:iam::\d{12}:role\/[\w+=,.@/-]{1,576}$/;

/**
 * Reads an exec entry.
 *
 * @throws Error that names the unsupported part, never a value
 */
export function readExecPlugin(entry: unknown): EksIdentity | KeylessIdentity {
  const exec = Exec.safeParse(entry);
  if (!exec.success) throw new Error('is not an exec entry: command is missing');
  const { command, args, env } = exec.data;
  const name = command
    .slice(Math.max(command.lastIndexOf('/'), command.lastIndexOf('\\')) + 1)
    .replace(/\.exe$/, '');
  const supported = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!supported) {
    throw new Error(
      'would run a command: register a token or a client certificate. The refresher supports only "aws eks get-token", "aws-iam-authenticator token" and "ecr-anywhere get-token", and signs their tokens itself',
    );
  }
  const values = optionsOf(name, supported, args ?? []);
  let { region } = values;
  for (const { name: variable, value } of env ?? []) {
    if (REGION_VARIABLES.includes(variable)) region ??= value;
    else if (!IGNORED_VARIABLES.has(variable))
      throw new Error(
        `sets the environment variable ${sanitizeName(variable)}, which is not supported: remove it`,
      );
  }
  if (region !== undefined && !/^[a-z]{2,4}(-[a-z]+)+-\d+$/.test(region))
    throw new Error('--region is not an AWS region');
  return supported.identity(values, region);
}

/** @param names the names of the options for the cluster and the role */
function eksIdentity(
  names: Readonly<Record<'cluster' | 'role', string>>,
  values: Readonly<Partial<Record<string, string>>>,
  region: string | undefined,
): EksIdentity {
  const cluster = values[names.cluster];
  if (!cluster) throw new Error(`does not name the cluster: add --${names.cluster}`);
  const roleArn = values[names.role];
  if (roleArn !== undefined && !ROLE_ARN.test(roleArn))
    throw new Error(
      `--${names.role} is not the ARN of a role, such as arn:aws:iam::123456789012:role/refresher`,
    );
  if (!/^[0-9A-Za-z][A-Za-z0-9_-]{0,99}$/.test(cluster))
    throw new Error(`--${names.cluster} is not the name of an EKS cluster`);
  const externalId = values['external-id'];
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
  { options, positionals }: SupportedCommand,
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
    if (!option)
      throw new Error(`has the option ${sanitizeName(token.rawName)}, which is not supported: remove it`);
    if (token.name in values) throw new Error(`has the option ${sanitizeName(token.rawName)} twice`);
    if (option.type === 'string' && !token.value)
      throw new Error(`has the option ${sanitizeName(token.rawName)} without a value`);
    values[token.name] = token.value ?? '';
  }
  if (!isDeepStrictEqual(given, positionals))
    throw new Error(`is not "${name} ${positionals.join(' ')}": other subcommands are not supported`);
  return values;
}
