// The host names of ECR registries in every partition, and what they contain. Pure.
import { hash } from 'node:crypto';

/** Where a token comes from. One token for a region and a principal opens every registry that the principal may read. */
export interface TokenSource {
  readonly service: 'ecr' | 'ecr-public';
  readonly region: string;
  /** The role to assume; without one the webhook uses its own identity. */
  readonly role?: { readonly arn: string; readonly externalId?: string | undefined } | undefined;
  /** The endpoint of the region: a registry with a FIPS or dual-stack host uses that one. */
  readonly fips?: boolean;
  readonly dualStack?: boolean;
}

export interface Registry {
  readonly source: TokenSource;
  /** The host; undefined for the webhook's own registry while neither a setting nor a token has named its account. */
  readonly host?: string | undefined;
}

export interface EcrHost {
  readonly service: TokenSource['service'];
  readonly region: string;
  readonly partition: string;
  readonly fips: boolean;
  readonly dualStack: boolean;
}

/** ECR Public has its API in one region only (Amazon ECR Public user guide, "Service endpoints"). */
const PUBLIC_HOST = { service: 'ecr-public', region: 'us-east-1', partition: 'aws', fips: false } as const;
const PUBLIC_HOSTS: ReadonlyMap<string, EcrHost> = new Map([
  ['public.ecr.aws', { ...PUBLIC_HOST, dualStack: false }],
  ['ecr-public.aws.com', { ...PUBLIC_HOST, dualStack: true }],
]);

interface Partition {
  readonly name: string;
  /** Matches the names of its regions. */
  readonly prefix: RegExp;
  /** The end of its hosts. */
  readonly domain: string;
  readonly dualStackDomain?: string;
}

/** AWS' partitions (aws-sdk-js-v3, partitions.json; the dual-stack hosts of "Making requests to Amazon ECR registries"). */
const PARTITIONS: readonly Partition[] = [
  {
    name: 'aws-cn',
    prefix: /^cn-/,
    domain: 'amazonaws.com.cn',
    dualStackDomain: 'on.amazonwebservices.com.cn',
  },
  { name: 'aws-us-gov', prefix: /^us-gov-/, domain: 'amazonaws.com', dualStackDomain: 'on.aws' },
  {
    name: 'aws-eusc',
    prefix: /^eusc-/,
    domain: 'amazonaws.eu',
    dualStackDomain: 'on.amazonwebservices.eu',
  },
  { name: 'aws-iso', prefix: /^us-iso-/, domain: 'c2s.ic.gov' },
  { name: 'aws-iso-b', prefix: /^us-isob-/, domain: 'sc2s.sgov.gov' },
  { name: 'aws-iso-e', prefix: /^eu-isoe-/, domain: 'cloud.adc-e.uk' },
  { name: 'aws-iso-f', prefix: /^us-isof-/, domain: 'csp.hci.ic.gov' },
  { name: 'aws', prefix: /^/, domain: 'amazonaws.com', dualStackDomain: 'on.aws' },
];

const PRIVATE_HOST = /^\d{12}\.dkr([.-])ecr(-fips)?\.([a-z]{2,4}(?:-[a-z]+)+-\d+)\.([a-z0-9.-]+)$/;

/** Parses the host of a registry; undefined if it is not an ECR host. */
export function parseEcrHost(host: string): EcrHost | undefined {
  const known = PUBLIC_HOSTS.get(host);
  if (known) return known;
  const [, separator, fips, region = '', domain] = PRIVATE_HOST.exec(host) ?? [];
  const partition = partitionOf(region);
  const dualStack = separator === '-';
  if (domain === undefined || domain !== (dualStack ? partition.dualStackDomain : partition.domain))
    return undefined;
  return { service: 'ecr', region, partition: partition.name, fips: fips !== undefined, dualStack };
}

function partitionOf(region: string): Partition {
  const found = PARTITIONS.find(({ prefix }) => prefix.test(region));
  if (!found) throw new Error('the last partition matches every region');
  return found;
}

/** The partition of a region. An identity of one partition is unknown in the others. */
export function partitionOfRegion(region: string): string {
  return partitionOf(region).name;
}

/** The ordinary host of an account's private registry: neither FIPS nor dual-stack. */
export function privateHost(account: string, region: string): string {
  return `${account}.dkr.ecr.${region}.${partitionOf(region).domain}`;
}

/** Whether a host is the registry's. While the registry's host is not known, every host is another one's. */
export function isHostOf({ host: own }: Registry, host: string): boolean {
  return host === own;
}

/** Whether a host may be the registry's, as far as that is known: it is one of the service in the region. */
export function mayBeHostOf({ host: own, source }: Registry, host: string): boolean {
  if (own !== undefined) return host === own;
  const parsed = parseEcrHost(host);
  return parsed?.service === source.service && parsed.region === source.region;
}

/** Stands for the host of a registry that is not known, in messages and in the annotation `registries`. */
export function unnamedHost({ region }: Pick<TokenSource, 'region'>): string {
  return `ECR in ${region}`;
}

/** A short hash of the role that a token is issued to; empty for the webhook's own identity. */
export function principalOf({ role }: Pick<TokenSource, 'role'>): string {
  if (role === undefined) return '';
  const known = principals.get(role) ?? hash('sha256', role.arn, 'base64url').slice(0, 8);
  principals.set(role, known);
  return known;
}

/** Each admission needs the hashes several times for each registry. */
const principals = new WeakMap<object, string>();

/** The key of a token in caches: equal for all sources that share one token. */
export function keyOf({ service, region, role }: Pick<TokenSource, 'service' | 'region' | 'role'>): string {
  return `${service} ${region} ${role?.arn ?? ''}`;
}
